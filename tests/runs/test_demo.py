"""The demo as its README tells it: the lift is learned, in this run, by the LoRA weights."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from demo_evidence import (
    claims_are_told_from_their_contradictions,
    retrieval_reaches_the_accuracy_of_the_own_contexts,
)
from fuzzing import THOROUGH
from warm_process import WarmCommand, WarmProcess, WarmProgram

ROOT = Path(__file__).parents[2]


def medqlora(folder: Path, *words: str) -> str:
    result = subprocess.run(
        [sys.executable, "-m", "medqlora", *words], cwd=folder, capture_output=True, text=True, env=os.environ
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def said(process: WarmProcess, log: Path) -> str:
    process.wait()
    errors = log.with_suffix(".errors")
    shown = log.read_text() if process.returncode == 0 or not errors.exists() else errors.read_text()
    assert process.returncode == 0, shown
    return shown


@pytest.mark.slow
def test_fit_then_test_goes_from_chance_to_above_90_percent_on_unseen_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if THOROUGH:  # the base is built in this run too; by day whichever test needs it first builds it for all
        monkeypatch.setenv("MEDQLORA_CACHE", str(tmp_path / "cache"))
    config = str(ROOT / "configs" / "demo.yaml")
    started = time.monotonic()
    printed = medqlora(tmp_path, "fit", "--config", config)
    seconds = time.monotonic() - started
    run = tmp_path / "lightning_logs" / "version_0"
    assert "medqlora test" in printed
    assert "tensorboard --logdir" in printed
    assert (run / "adapter" / "adapter_model.safetensors").is_file()
    assert json.loads((run / "run.json").read_text())["state"] == "finished"
    print(f"the demo's fit took {seconds:.0f} s")

    log, errors = tmp_path / "test.txt", tmp_path / "test.errors"
    command = WarmCommand(["test", "--config", config], cwd=tmp_path, log=log, errors=errors)
    first, *_ = said(command, log).splitlines()
    assert first == f"Evaluating the newest finished run's adapter, {run.relative_to(tmp_path)}/adapter"
    report = json.loads((tmp_path / "lightning_logs" / "version_1" / "test_report.json").read_text())
    assert report["n"] == 400
    assert report["accuracy"] >= 0.90
    assert report["generation"]["accuracy"] >= 0.90
    assert report["majority_accuracy"] <= 0.45
    assert report["base"]["accuracy"] < 0.60
    assert report["mcnemar_p"] < 1e-6

    monkeypatch.chdir(tmp_path)
    retrieval_reaches_the_accuracy_of_the_own_contexts(tmp_path, config)
    claims_are_told_from_their_contradictions(tmp_path, run / "adapter")

    # the same in a program of one's own
    program = f"import os, runpy\nos.chdir({str(tmp_path)!r})\n"
    program += f"runpy.run_path({str(ROOT / 'examples' / 'own_trainer.py')!r}, run_name='__main__')\n"
    log = tmp_path / "own.txt"
    shown = said(WarmProgram(program, log=log), log)
    assert "accuracy " in shown
    own = tmp_path / "lightning_logs" / "version_3"
    assert (own / "adapter" / "adapter_model.safetensors").is_file()
    assert json.loads((own / "test_report.json").read_text())["n"] == 40
