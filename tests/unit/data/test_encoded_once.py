"""Of several processes that need the same tokenized records one makes them, and the others wait."""

import os
import subprocess
import sys
from pathlib import Path

from tokenizer_families import family

_ENCODES = """
import sys, time
from pathlib import Path
from transformers import AutoTokenizer
from medqlora.data import SyntheticTrials, encode_all, lookup
from medqlora.data.encoding import encode

module = sys.modules["medqlora.data.encoding.encode"]
original, calls = module._Encoder.encode, []

def slow(self, records):
    calls.append(len(records))
    time.sleep(0.5)
    return original(self, records)

module._Encoder.encode = slow
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
records = SyntheticTrials(train=300).read().train
print("ready", flush=True)
while not Path(sys.argv[2]).exists():
    time.sleep(0.001)
found = encode_all(records, lookup("medical"), tokenizer, 400)
print(sum(calls), len(found), hash(tuple(tuple(one.prompt) for one in found)))
"""


def test_two_processes_at_once_tokenize_once_between_them(tmp_path: Path) -> None:
    family("llama3").save_pretrained(tmp_path / "tokenizer")
    command = [sys.executable, "-c", _ENCODES, tmp_path / "tokenizer", tmp_path / "go"]
    environment = {**os.environ, "MEDQLORA_CACHE": str(tmp_path / "cache"), "PYTHONHASHSEED": "0"}
    both = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for one in both:
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n"
    (tmp_path / "go").touch()
    said = [one.communicate(timeout=120)[0].splitlines() for one in both]
    results = sorted(lines[-1].split() for lines in said)
    assert [result[0] for result in results] == ["0", "300"]
    assert results[0][1:] == results[1][1:]
    waited = [
        lines for lines in said if lines[0].startswith("Waiting for another process that is tokenizing")
    ]
    assert len(waited) == 1
