"""`medqlora runs`: what is under a log folder, from the folders alone, and how to go on with what didn't finish."""

import json
import os
import shlex
import socket
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import psutil
import pytest
from harness import options, refused, run

from medqlora.artifacts.runs import RunRecord
from medqlora.cli import main
from medqlora.utils.files import now

BASE = "unsloth/llama-3-8b-bnb-4bit"


def a_run(root: Path, number: int, *, last: bool = False, config: bool = True, **fields: Any) -> Path:
    """A run's folder as `fit` leaves it, its record with `fields` changed."""
    folder = root / f"version_{number}"
    record = RunRecord("fit", "finished", BASE, BASE, started=f"2026-11-2{number}T10:00:00+00:00")
    record.write(folder)
    path = folder / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
    if config:
        (folder / "config.yaml").write_text("seed_everything: 0\n")
    if last:
        (folder / "checkpoints").mkdir()
        (folder / "checkpoints" / "last.ckpt").write_bytes(b"x" * 1000)
    return folder


def listed(capsys: pytest.CaptureFixture[str], folder: Path) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert main(["runs", str(folder), "--json"]) == 0
    return json.loads(capsys.readouterr().out)["runs"]


def shown(capsys: pytest.CaptureFixture[str], folder: Path) -> list[str]:
    capsys.readouterr()
    assert main(["runs", str(folder)]) == 0
    return capsys.readouterr().out.splitlines()


def test_the_newest_run_is_at_the_top_with_its_score_size_and_base(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a_run(tmp_path, 2)
    a_run(tmp_path, 0, best={"val/accuracy": 0.6875})
    newest = a_run(tmp_path, 5, last=True, best={"val/accuracy": 0.75})
    (tmp_path / "bench").mkdir()
    (tmp_path / "version_notes.txt").write_text("a file")
    rows = listed(capsys, tmp_path)
    assert [row["run"] for row in rows] == ["version_5", "version_2", "version_0"]
    size = sum(file.stat().st_size for file in newest.rglob("*") if file.is_file())
    assert rows[0] == {
        "run": "version_5",
        "folder": str(newest),
        "command": "fit",
        "state": "finished",
        "best": {"val/accuracy": 0.75},
        "base": BASE,
        "bytes": size,
        "started": "2026-11-25T10:00:00+00:00",
        "error": None,
        "resume": None,
        "answers": None,
        "damaged": None,
    }
    lines = shown(capsys, tmp_path)
    assert len(lines) == 4
    for part in (
        "version_5",
        "fit",
        "finished",
        "val/accuracy 0.7500",
        BASE,
        f"{size / 1000:.1f} kB",
        "2026-11-25 10:00",
    ):
        assert part in lines[1]
    assert len({line.index(BASE) for line in lines[1:]}) == 1  # columns stand under one another


def test_equal_times_are_ordered_by_the_runs_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in (9, 10, 8):
        a_run(tmp_path, number, started="2026-11-20T10:00:00+00:00")
    assert [row["run"] for row in listed(capsys, tmp_path)] == ["version_10", "version_9", "version_8"]


def test_times_of_another_zone_are_compared_in_utc(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a_run(tmp_path, 1, started="2026-11-20T10:00:00+00:00")
    a_run(tmp_path, 2, started="2026-11-20T11:00:00+02:00")  # 09:00 in UTC
    rows = listed(capsys, tmp_path)
    assert [(row["run"], row["started"]) for row in rows] == [
        ("version_1", "2026-11-20T10:00:00+00:00"),
        ("version_2", "2026-11-20T09:00:00+00:00"),
    ]


@pytest.mark.parametrize("state", ["failed", "running"])
def test_an_unfinished_run_with_a_checkpoint_says_how_to_go_on(
    state: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "my logs"
    folder = a_run(root, 0, last=True, state=state)
    (row,) = listed(capsys, root)
    assert shlex.split(row["resume"]) == [
        *("medqlora", "fit", "--config", str(folder / "config.yaml")),
        *("--ckpt_path", str(folder / "checkpoints" / "last.ckpt")),
    ]
    assert any(line.endswith(row["resume"]) for line in shown(capsys, root))


def test_nothing_is_offered_where_there_is_nothing_to_go_on_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a_run(tmp_path, 0, state="failed", error="RuntimeError: CUDA error")
    a_run(tmp_path, 1, last=True)
    first, second = listed(capsys, tmp_path)
    assert (first["state"], first["resume"], second["state"], second["resume"]) == (
        *("finished", None),
        *("failed", None),
    )
    assert any("ended by RuntimeError: CUDA error" in line for line in shown(capsys, tmp_path))


def test_a_run_whose_process_was_killed_is_interrupted_and_one_whose_process_lives_is_running(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        here = {"state": "running", "pid": process.pid, "host": socket.gethostname(), "started": now()}
        a_run(tmp_path, 0, last=True, **here)
        (row,) = listed(capsys, tmp_path)
        assert (row["state"], row["resume"]) == ("running", None)
        process.kill()
        while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
            pass
        assert listed(capsys, tmp_path)[0]["state"] == "interrupted"  # dead, and nobody asked for its end
    finally:
        process.kill()
        process.communicate()
    (row,) = listed(capsys, tmp_path)
    assert row["state"] == "interrupted"
    assert row["resume"] is not None


def test_another_process_with_the_number_of_the_dead_one_is_not_taken_for_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    born = datetime.fromtimestamp(psutil.Process().create_time(), timezone.utc)
    here = {"state": "running", "pid": os.getpid(), "host": socket.gethostname()}
    a_run(tmp_path, 0, **here, started=(born - timedelta(hours=1)).isoformat(timespec="seconds"))
    a_run(tmp_path, 1, **here, started=(born + timedelta(seconds=1)).isoformat(timespec="seconds"))
    assert [row["state"] for row in listed(capsys, tmp_path)] == ["running", "interrupted"]


@pytest.mark.parametrize(
    "fields",
    [
        {"host": None},
        {"pid": 1, "host": "elsewhere"},
        {"pid": None},
        {"pid": True},
        {"pid": "7"},
        {"pid": -1},
    ],
)
def test_where_the_process_cant_be_asked_it_is_running_or_interrupted(
    fields: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a_run(tmp_path, 0, last=True, **{"state": "running", "host": socket.gethostname(), **fields})
    (row,) = listed(capsys, tmp_path)
    assert row["state"] == "running or interrupted"
    assert any("if it has ended: medqlora fit" in line for line in shown(capsys, tmp_path))


@pytest.mark.parametrize("text", ["", '{"command": "fit", "sta', "[1, 2]", "\x00", '{"command": 3}', "{}"])
def test_a_damaged_record_is_said_and_the_other_runs_are_listed(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a_run(tmp_path, 0)
    damaged = a_run(tmp_path, 1, last=True)
    (damaged / "run.json").write_text(text)
    rows = {row["run"]: row for row in listed(capsys, tmp_path)}
    assert rows["version_0"]["damaged"] is None
    assert rows["version_1"]["state"] is None
    assert rows["version_1"]["damaged"].startswith("run.json")
    assert "last.ckpt" in rows["version_1"]["resume"]
    assert any("damaged record" in line for line in shown(capsys, tmp_path))


@pytest.mark.parametrize(
    "fields", [{"best": [1]}, {"best": {"a": "b"}}, {"base": 7}, {"started": 3}, {"started": "yesterday"}]
)
def test_a_field_of_another_kind_is_left_out(
    fields: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a_run(tmp_path, 0, **fields)
    (row,) = listed(capsys, tmp_path)
    assert row["state"] == "finished"
    assert row["started"] is not None
    assert len(shown(capsys, tmp_path)) == 2


def test_a_tests_folder_is_known_by_its_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "version_3"
    folder.mkdir()
    (folder / "test_report.json").write_text(json.dumps({"accuracy": 0.71, "n": 500}))
    (row,) = listed(capsys, tmp_path)
    assert (row["command"], row["state"], row["best"]) == ("test", "finished", {"test/accuracy": 0.71})


def test_a_run_without_a_record_or_a_result_is_listed_without_a_state(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "version_0").mkdir()
    (row,) = listed(capsys, tmp_path)
    assert (row["command"], row["state"], row["bytes"], row["started"]) == (None, None, 0, None)
    assert len(shown(capsys, tmp_path)) == 2


def test_a_runs_own_folder_may_be_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a_run(tmp_path, 0)
    folder = a_run(tmp_path, 1)
    assert [row["run"] for row in listed(capsys, folder)] == ["version_1"]


def test_a_record_cant_write_to_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = "RuntimeError: \x1b]0;owned\x07 \ud800 \u202e"
    a_run(tmp_path, 0, state="failed", error=error, base="a\x1b[2Jb", command="fit\r")
    text = "\n".join(shown(capsys, tmp_path))
    assert "owned" in text
    assert all(letter.isprintable() or letter == "\n" for letter in text)


def test_without_runs_it_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shown(capsys, tmp_path) == [f"No run in {tmp_path}: `medqlora fit` makes one"]
    a_run(tmp_path / "lightning_logs", 0)
    (line,) = shown(capsys, tmp_path)
    assert line.endswith(f"did you mean {tmp_path / 'lightning_logs'}?")
    monkeypatch.chdir(tmp_path)
    assert main(["runs"]) == 0  # ./lightning_logs
    assert "version_0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "FOLDER lightning_logs: there is no such folder here: name the one that holds version_0"),
        (["nowhere"], "FOLDER nowhere: there is no such folder here"),
        (["a_file"], "FOLDER a_file: it is a file"),
        (["--jsno"], "did you mean '--json'?"),
    ],
)
def test_wrong_input_gets_one_line_and_exit_code_2(
    words: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a_file").touch()
    assert said in refused(capsys, "runs", *words)


def test_no_torch_is_imported(tmp_path: Path) -> None:
    a_run(tmp_path, 0, last=True, state="running", pid=os.getpid(), host=socket.gethostname())
    code = (
        "import sys; from medqlora.cli import main; code = main(['runs', sys.argv[1]]);"
        "heavy = ('torch', 'lightning', 'transformers', 'numpy', 'yaml');"
        "print(code, [name for name in heavy if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
    )
    took, found = done.stderr.splitlines()
    assert took.startswith("Took ")
    assert found == "0 []"
    assert "version_0" in done.stdout


@pytest.mark.slow
def test_the_line_that_says_how_to_go_on_does(
    tiny_bases: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from interruptions import InterruptionError

    words = [*options(tiny_bases["llama"], tmp_path), "--checkpoint.every_n_train_steps=1"]
    stop = ["--trainer.callbacks=interruptions.StopAt", "--trainer.callbacks.step=3"]
    with pytest.raises(InterruptionError):
        run("fit", [*words, *stop])
    folder = tmp_path / "lightning_logs"
    (row,) = listed(capsys, folder)
    assert row["state"] == "failed"
    config = folder / "version_0" / "config.yaml"
    config.write_text(config.read_text().replace("step: 3", "step: 1000"))  # what ended it is put right
    assert main(shlex.split(row["resume"])[1:]) == 0
    (row,) = listed(capsys, folder)
    assert (row["run"], row["state"], row["resume"]) == ("version_0", "finished", None)
    assert set(row["best"]) == {"val/accuracy"}


def test_the_demos_base_has_words_for_its_folder_in_the_cache(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = "/home/me/.cache/medqlora/tiny_llama/d1e21b865df8849e"
    a_run(tmp_path, 0, base=folder)
    text = "\n".join(shown(capsys, tmp_path))
    assert "the demo's base" in text
    assert "tiny_llama" not in text
    assert listed(capsys, tmp_path)[0]["base"] == folder, "a program gets the folder"
