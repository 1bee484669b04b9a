"""The first hour on a terminal: a word or a moving line in every phase, with totals; and what is printed works."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from harness import options, run
from pseudo_terminal import PseudoTerminal
from warm_process import WarmCommand

from medqlora.artifacts.run_folder import RunFolder
from medqlora.errors import InputError


def on_a_terminal(words: list[str], folder: Path) -> PseudoTerminal:
    """What a command says; it has come to its end."""
    terminal = PseudoTerminal()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TERM": "xterm"}
    command = WarmCommand(words, cwd=folder, log=terminal.name, env=environment)
    terminal.read_until(lambda: command.poll() is not None)
    terminal.close()
    assert command.wait() == 0, terminal.text
    return terminal


@pytest.fixture(scope="module")
def pair(tiny_bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> list[PseudoTerminal]:
    """A fit that ends by its steps, and then the test that it names: copied from its screen."""
    folder = tmp_path_factory.mktemp("first hour")
    words = [*options(tiny_bases["llama"], folder, train=40, dev=6), "--progress.refresh_rate=1"]
    end = ["--trainer.max_epochs=-1", "--trainer.max_steps=12", "--model.lora.r=2"]
    fit = on_a_terminal(["fit", *words, *end, "--trainer.default_root_dir=new/root"], folder)
    line = next(line for line in fit.lines if line.startswith("Next:"))
    return [fit, on_a_terminal(shlex.split(line)[2:], folder)]


def test_every_phase_of_a_fit_is_on_the_screen_with_its_total(pair: list[PseudoTerminal]) -> None:
    fit, _ = pair
    shown = "\n".join(fit.drawings)
    for phase in (
        "Reading the questions",
        "Checking the examples",
        "Loading the base model",
        "Choosing the engine",
    ):
        assert phase in shown
    assert re.search(r"Tokenizing .*0/40 records", shown)
    assert re.search(r"Comparing the largest pack .*/\d+ examples", shown)
    assert "validating 6/6 questions" in shown
    steps = [line for line in fit.drawings if line.startswith("Training")]
    assert all("/12 steps" in line for line in steps)
    counted = [int(match[1]) for line in steps if (match := re.search(r" (\d+)/12 steps", line))]
    assert counted == sorted(counted)
    assert counted[-1] == 12
    assert any(re.search(r"\d+ s, \d+ s left", line) for line in steps)


def test_every_question_of_a_test_is_counted(pair: list[PseudoTerminal]) -> None:
    _, test = pair
    counted = [line for line in test.drawings if line.startswith("Test ")]
    assert all("/15 questions" in line for line in counted)  # 9 to answer, 6 for the calibration
    assert any("Scores and report" in line for line in test.drawings)
    assert test.lines[0].startswith("Evaluating the adapter ")


def test_no_line_is_glued_to_a_bar_and_no_library_speaks(pair: list[PseudoTerminal]) -> None:
    for terminal in pair:
        assert not [line for line in terminal.lines if "━" in line or "─ " in line or "%|" in line]
        assert "Warning:" not in terminal.text.replace("Warning: the validation set", "")
        assert "Trainer.fit" not in terminal.text
        assert re.fullmatch(r"Took [\dhmins. ]+ s|Took \d+ h \d+ min", terminal.lines[-1])


def test_the_first_word_comes_before_any_large_import(tmp_path: Path) -> None:
    if not Path("/proc/self/maps").is_file():
        pytest.skip("no /proc here")
    terminal = PseudoTerminal()
    config = Path(__file__).parents[2] / "configs" / "demo.yaml"
    command = [sys.executable, "-m", "medqlora", "fit", "--config", str(config)]
    environment = {**os.environ, "TERM": "xterm"}
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=terminal.slave, stderr=terminal.slave, env=environment
    )
    try:
        # the first that is written ends the reading, and the process is stopped where it stands
        first = os.read(terminal.master, 4096).decode()
        loaded = Path(f"/proc/{process.pid}/maps").read_text()
    finally:
        process.kill()
        process.wait()
        terminal.close()
    assert "Loading the program" in first
    assert "libtorch" not in loaded


def test_auto_goes_on_with_an_unfinished_run_and_else_begins_one(
    tiny_bases: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*options(tiny_bases["llama"], tmp_path, train=8, test=3), "--model.generate=false"]
    words = [*words, "--progress.refresh_rate=1"]
    begun = run("fit", [*words, "--trainer.max_epochs=1", "--ckpt_path=auto"])
    shown = capsys.readouterr()
    assert "holds no unfinished run with a whole checkpoint: a new run begins" in shown.out
    assert not [sign for sign in ("\r", "━") if sign in shown.out + shown.err]  # no terminal, no drawing
    first = RunFolder(Path(begun.trainer.log_dir))
    with pytest.raises(InputError, match=r"--ckpt_path best: .* holds no unfinished fit"):
        run("fit", [*words, "--ckpt_path=best"])
    record = json.loads(first.record_file.read_text())
    first.record_file.write_text(json.dumps({**record, "state": "interrupted"}))
    resumed = run("fit", [*words, "--trainer.max_epochs=2", "--ckpt_path=auto"])
    assert (Path(resumed.trainer.log_dir), resumed.trainer.global_step) == (first.path, 4)
    said = capsys.readouterr().out
    assert f"Going on with {first.last_checkpoint}, of step 2" in said
    # the same configuration begins the run anew, and `Next` needs no option against it
    assert yaml.safe_load(first.config.read_text())["ckpt_path"] is None
    best = run("validate", [*words, "--ckpt_path=best"])
    assert Path(str(best.model.checkpoint)).parent == first.checkpoints
    assert Path(str(best.model.checkpoint)).name.startswith("epoch")


def test_a_run_without_test_questions_or_steps_names_no_test(
    tiny_bases: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*options(tiny_bases["llama"], tmp_path, train=8, test=0), "--model.generate=false"]
    run("fit", [*words, "--trainer.max_steps=1", "--trainer.limit_val_batches=0"])
    assert "Next:    tensorboard --logdir" in capsys.readouterr().out
    logger = ["--trainer.logger=CSVLogger", f"--trainer.logger.save_dir={tmp_path / 'csv'}"]
    run("fit", [*words, "--trainer.max_epochs=0", *logger])
    said = capsys.readouterr().out
    assert f"Run:     {tmp_path / 'csv' / 'lightning_logs' / 'version_0'}" in said
    assert "Next:" not in said
