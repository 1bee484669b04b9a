"""A training in stages that is killed in each of them ends as one that never was."""

import json
import signal
from pathlib import Path

import pytest
from harness import options, run, write_rows
from harness import questions as rows
from interruptions import manifest_step, outcome, run_folder, same, started

#: 3 epochs of 3 steps, then 2 of 6
STEPS, FIRST = 21, 9


def words(base: Path, folder: Path) -> list[str]:
    given = options(base, folder)
    extra = write_rows(folder / "extra.jsonl", rows(20, 5000))
    source = {"class_path": "medqlora.data.JSONLines", "init_args": {"train": str(extra), "dev_fraction": 0}}
    stages = [
        {
            "name": "extra",
            "source": source,
            "epochs": 3,
            "samples": 10,
            "sampling": "label",
            "learning_rate": 2e-3,
        },
        {"epochs": 2},
    ]
    return [
        *given,
        f"--data.stages={json.dumps(stages)}",
        "--data.balance=loss",
        "--data.label_smoothing=0.1",
        "--data.stage_schedule=each",
        "--model.lora.dropout=0.1",
        "--model.generate=false",
        "--checkpoint.every_n_train_steps=2",
    ]


def test_a_run_killed_in_each_stage_ends_with_the_same_bytes(
    tiny_bases: dict[str, Path], tmp_path: Path
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    run("fit", words(tiny_bases["llama"], whole))
    expected = outcome(whole)
    assert expected["global_step"] == STEPS
    rates = [rate for _, rate in expected["curve"]["train/learning_rate"]]
    assert max(rates[:FIRST]) == pytest.approx(2e-3)
    assert max(rates[FIRST:]) == pytest.approx(5e-3)
    assert [step for step, _ in expected["curve"]["stages/1_extra/accuracy"]] == [FIRST - 1]
    given, resume = words(tiny_bases["llama"], killed), list[str]()
    for reached in (5, FIRST + 2):  # a step of the first stage, one of the second
        at = ["--trainer.callbacks=signal_at.KilledIn", f"--trainer.callbacks.step={reached}"]
        process = started([*given, *resume, *at, "--trainer.callbacks.anywhere=true"], killed)
        assert process.wait() == -signal.SIGKILL, (killed / "log.txt").read_text()
        assert manifest_step(run_folder(killed)) == reached - reached % 2
        resume = ["--ckpt_path=last"]
    run("fit", [*given, *resume])
    found = outcome(killed)
    assert [key for key in expected if not same(found[key], expected[key])] == []
