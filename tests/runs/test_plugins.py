"""A data set, a prompt, a metric and a command from outside the tree work with one file each, and no file of ours."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tokenizer_families import family

from medqlora.data import lookup
from medqlora.data.encoding.encode import encode
from medqlora.errors import InputError
from medqlora.records import Record

DATASET = '''
from medqlora.data import SOURCES, Source
from medqlora.records import Record, Splits

@SOURCES.register("Wards")
class Wards(Source):
    """Questions of a ward.

    Args:
        count: the number of training questions.
    """

    name = "Wards"

    def __init__(self, count: int = 3) -> None:
        self.count = count

    def read(self) -> Splits:
        records = [Record(str(n), f"Is ward {n} open?", answer="yes") for n in range(self.count)]
        return Splits(records, [], [])

    def fingerprint(self) -> dict[str, object]:
        return {"source": self.name, "count": self.count}
'''

PROMPT = """
from medqlora.data import PROMPTS, TemplatePrompt

@PROMPTS.register("ward")
class Ward(TemplatePrompt):
    pieces = {"prompt": "WARD ROUND: {question}{options}{context}\\nSAY:", "context": "\\nNOTES: {contexts}"}
"""

RECORD = Record("1", "Is aspirin of use here?", answer="yes", long_answer="It was.")


def printed(folder: Path, plugin: str, code: str) -> object:
    """What `code` prints as JSON, in a process whose PYTHONPATH and MEDQLORA_PLUGINS have the plugin."""
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "MEDQLORA_PLUGINS": plugin}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


# --- a data set -------------------------------------------------------------------------------------


def test_a_data_set_of_ones_own_is_one_file(tmp_path: Path) -> None:
    (tmp_path / "wards.py").write_text(DATASET)
    code = """
import json
from medqlora.data import source_names
from medqlora.data.stages import read_stages
from wards import Wards
splits = read_stages(Wards(count=2), ("train", "dev"), print)
print(json.dumps([source_names(), [record.question for record in splits.train]]))
"""
    names, questions = printed(tmp_path, "wards", code)  # type: ignore[misc]
    assert "wards.Wards" in names
    assert "medqlora.data.PubMedQA" in names
    assert questions == ["Is ward 0 open?", "Is ward 1 open?"]


# --- a prompt ---------------------------------------------------------------------------------------


def test_a_prompt_of_ones_own_is_one_file_and_has_a_name(tmp_path: Path) -> None:
    (tmp_path / "ward_prompt.py").write_text(PROMPT)
    code = """
import json
from medqlora.data import lookup, prompt_names
from medqlora.errors import InputError
try:
    lookup("wards")
except InputError as error:
    print(json.dumps([prompt_names(), lookup("ward").describe(), str(error)]))
"""
    names, described, error = printed(tmp_path, "ward_prompt", code)  # type: ignore[misc]
    assert {"ward", "medical"} <= set(names)
    assert described["name"] == "ward"
    assert "no prompt is called 'wards': did you mean ward?" in error


def test_a_prompt_is_found_by_its_class_path_and_again_by_what_the_adapter_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_ward.py").write_text(PROMPT.replace('@PROMPTS.register("ward")\n', ""))
    monkeypatch.syspath_prepend(tmp_path)
    prompt, tokenizer = lookup("own_ward.Ward"), family("llama3")
    example = encode(RECORD, prompt, tokenizer, 100)
    assert tokenizer.decode(list(example.prompt)).endswith("WARD ROUND: Is aspirin of use here?\nSAY:")
    assert tokenizer.decode(list(example.completion)).startswith(" yes. It was.")
    recorded = prompt.describe(tokenizer)
    assert recorded["name"] == "own_ward.Ward"
    assert lookup(str(recorded["name"])).describe(tokenizer) == recorded
    with pytest.raises(
        InputError, match=r"^adapter\.json: gone\.Ward: there is no module 'gone': .* PYTHONPATH$"
    ):
        lookup("gone.Ward", "adapter.json")


# --- a metric ---------------------------------------------------------------------------------------

# --- a command --------------------------------------------------------------------------------------
