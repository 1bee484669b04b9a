"""The layout of a run's folder, in one place."""

import ast
from pathlib import Path

import pytest

from medqlora.artifacts.run_folder import RunFolder
from medqlora.artifacts.runs import finished_adapters, fits
from medqlora.data.bad_records import FILE_NAME

ROOT = Path(__file__).parents[3]
#: names in a run's folder that no other file of these rooms spells out
NAMES = ("checkpoints", "last.ckpt", "run.json", "version_", "lightning_logs", "adapter_config.json")
#: whose "checkpoints" is a heading of a report
HEADINGS = ("folders.py",)


def test_a_new_run_gets_the_next_number_whatever_else_lies_there(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    assert RunFolder.new(logs).path == logs / "version_0"
    (logs / "version_7").mkdir()
    (logs / "version_8").touch()  # a file of that name
    (logs / "version_mine").mkdir()
    assert RunFolder.new(logs).path == logs / "version_9"
    assert [RunFolder(logs / name).number for name in ("version_9", "version_mine", "9a")] == [9, -1, -1]


def test_a_checkpoint_belongs_to_the_run_above_its_folder(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "version_0")
    assert RunFolder.of_checkpoint(run.last_checkpoint) == run
    assert RunFolder.of_checkpoint(tmp_path / "last.ckpt") is None


def test_predictions_take_the_first_free_name(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    names = []
    for _ in range(3):
        names.append(run.free_predictions().name)
        run.free_predictions().touch()
    assert names == ["predictions.jsonl", "predictions-1.jsonl", "predictions-2.jsonl"]


def test_the_list_of_bad_records_has_the_name_that_its_remark_gives(tmp_path: Path) -> None:
    assert RunFolder(tmp_path).bad_records.name == FILE_NAME


def test_a_missing_log_folder_holds_no_runs(tmp_path: Path) -> None:
    assert fits(tmp_path / "none", "base") == []
    assert finished_adapters(tmp_path / "none") == []


@pytest.mark.parametrize("room", ["artifacts", "callbacks", "utils", "commands/diagnosis"])
def test_no_other_file_of_these_rooms_knows_a_name_of_the_layout(room: str) -> None:
    found = []
    for file in sorted((ROOT / "medqlora" / room).glob("*.py")):
        if file.name in ("run_folder.py", *HEADINGS):
            continue
        tree = ast.parse(file.read_text(encoding="utf-8"))
        found += [
            f"{file.name}:{node.lineno}: {node.value}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and node.value in NAMES
        ]
    # the option `--checkpoint.dirpath` and doctor's attributes are no names of the layout
    assert found == []
