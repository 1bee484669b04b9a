"""What a terminal, a pipe or a signal does to a command: one line, an exit code that says which, no traceback."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from harness import options, questions, refused, run, write_rows
from interruptions import wait
from warm_process import WarmCommand

from medqlora.cli import main

MEDQLORA = [sys.executable, "-m", "medqlora"]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", **more}


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["runs", "{logs}"]])
def test_a_reader_that_has_gone_ends_a_command_without_a_word(tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "version_0").mkdir()
    read, write = os.pipe()
    os.close(read)
    given = [word.format(logs=tmp_path) for word in words]
    done = subprocess.run([*MEDQLORA, *given], stdout=write, stderr=subprocess.PIPE, env=environment())
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


def test_what_a_message_quotes_is_one_line_and_moves_no_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(capsys, "runs", f"{tmp_path}/\x1b[31mred\x1b]0;title\x07\nmedqlora: all is well\u202e")
    assert "\\x1b[31mred\\x1b]0;title\\x07 medqlora: all is well\\u202e" in said
    assert said.rstrip("\n").isprintable()


@pytest.mark.parametrize("option", ["--config", "--ckpt_path"])
def test_a_name_that_is_too_long_for_a_file_is_wrong_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    word = f"{option}={tmp_path}/{'n' * 5000}"
    said = refused(capsys, "fit", f"--trainer.default_root_dir={tmp_path}", word, reads=True)
    assert "the name is too long" in said
    assert len(said) < 200


def begin(words: list[str], ready: str, tmp_path: Path) -> WarmCommand:
    """The command, once it has said `ready`."""
    log = tmp_path / "log.txt"
    log.touch()
    process = WarmCommand(words, cwd=tmp_path, log=log)
    assert wait(process, lambda: ready in log.read_text(errors="replace")), log.read_text(errors="replace")
    return process


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("verb", ["test", "predict", "fit"])
def test_a_signal_ends_every_command_at_once_with_one_line(
    tiny_bases: dict[str, Path], tmp_path: Path, verb: str, number: signal.Signals, code: int
) -> None:
    words = [*options(tiny_bases["llama"], tmp_path), "--data.eval_batch_size=1"]
    out = tmp_path / "answers.jsonl"
    given: dict[str, list[str]] = {
        "test": [f"--data.source.test={write_rows(tmp_path / 'many.jsonl', questions(3000, 5000))}"],
        "predict": [
            f"--data.questions={write_rows(tmp_path / 'many.jsonl', questions(3000, 5000))}",
            f"--answers.path={out}",
        ],
        "fit": ["--trainer.max_epochs=4000"],
    }
    # of a fit, mostly before its first step: from then on it ends with a checkpoint
    ready = "questions" if verb == "fit" else "Engine:"
    adapter = [] if verb == "fit" else ["--model.adapter=none"]
    process = begin([verb, *words, *given[verb], *adapter], ready, tmp_path)
    if verb == "predict":
        assert wait(process, lambda: out.exists() and out.stat().st_size > 0)
    elif verb == "test":
        time.sleep(0.5)
    process.send_signal(number)
    assert process.wait(timeout=240) == code
    shown = (tmp_path / "log.txt").read_text()
    assert "Traceback" not in shown
    assert shown.rstrip().splitlines()[-1].startswith(f"medqlora: ended by {number.name}")
    if verb == "predict":  # and the same command answers the rest
        held = out.read_text().count("\n")
        assert 0 < held < 3000


def test_what_ignores_a_signal_goes_on_ignoring_it() -> None:
    from medqlora.utils.interrupts import interrupting

    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interrupting():
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def adapter(tiny_bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    cli = run("fit", [*options(tiny_bases["llama"], folder), "--trainer.max_steps=2"])
    return Path(str(cli.adapter_folder))


@pytest.mark.slow
@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
def test_a_line_that_is_no_utf8_is_told_and_the_next_one_answered(
    adapter: Path, errors: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The input as the interpreter opens it under `PYTHONIOENCODING=utf-8:errors`."""
    given = io.BytesIO(b"Does \xff\xfe help?\nDoes drug 7 help?\n")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(given, encoding="utf-8", errors=errors))
    assert main(["ask", "--adapter", str(adapter), "--device", "cpu"]) == 0
    shown = capsys.readouterr().out
    assert "not a text in UTF-8" in shown
    assert "Not medical advice" in shown.rpartition("not a text in UTF-8")[2]


@pytest.mark.slow
def test_ask_without_a_question_or_an_input_to_read_one_from_says_so(adapter: Path) -> None:
    command = " ".join([*MEDQLORA, "ask", "--adapter", str(adapter), "<&-"])
    done = subprocess.run(command, shell=True, capture_output=True, env=environment())
    assert done.returncode == 2
    assert b"there is no input to read one from" in done.stderr
    assert main(["ask", "  "]) == 2


def test_a_terminal_that_is_not_utf8_ends_no_command(tmp_path: Path) -> None:
    (tmp_path / "version_0").mkdir()
    for encoding in ("latin-1", "ascii"):
        done = subprocess.run(
            [*MEDQLORA, "runs", str(tmp_path)],
            capture_output=True,
            env=environment(PYTHONIOENCODING=encoding),
        )
        assert done.returncode == 0, done.stderr
        assert b"\\u2013" in done.stdout  # the dash of what isn't known


def test_what_is_said_of_a_strangers_adapter_moves_no_terminal(
    adapter: Path, tiny_bases: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "adapter"
    shutil.copytree(adapter, folder)
    record = json.loads((folder / "medqlora.json").read_text())
    record["prompt"]["name"] = "\x1b]0;title\x07"
    (folder / "medqlora.json").write_text(json.dumps(record))
    (folder / "manifest.json").unlink()
    capsys.readouterr()
    run("validate", [*options(tiny_bases["llama"], tmp_path), f"--model.adapter={folder}"])
    shown = capsys.readouterr().out
    assert "Note: trained with the prompt '\\x1b]0;title\\x07'" in shown
    assert "\x1b" not in shown
