"""The header of a report: what the adapter's record says, and nothing where it says nothing."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from medqlora.artifacts.evaluated_weights import EvaluatedWeights
from medqlora.callbacks.report_context import (
    hardware,
    settings,
    trained_on,
    training_run,
    training_time,
)


def test_the_records_settings_are_told_in_words() -> None:
    record: dict[str, Any] = {
        "data": {"name": "PubMedQA", "train_questions": 1450},
        "dev_ids": ["1", "2"],
        "training": {
            "step": 57,
            "of_steps": 171,
            "epochs": 3,
            "batch_size": 8,
            "learning_rate": 2e-4,
            "seed": 0,
        },
        "lora": {"r": 16, "alpha": 32.0},
    }
    assert trained_on(record) == "PubMedQA, 1,450 questions, 2 for validation"
    assert settings(record) == (
        "step 57 of 171, 8 examples a step, 3 epochs, learning rate 0.0002, seed 0, LoRA rank 16, alpha 32"
    )


@pytest.mark.parametrize(
    "record", [{}, {"data": None, "training": [], "lora": "?"}, {"training": {"step": 1}}]
)
def test_a_record_of_another_tool_leaves_the_facts_out(record: dict[str, Any]) -> None:
    assert (trained_on(record), settings(record)) == ("", "")


def test_the_runs_folder_is_the_adapters_own_while_it_lies_there(tmp_path: Path) -> None:
    adapter = tmp_path / "version_3" / "adapter"
    weights = EvaluatedWeights("adapter", str(adapter), folder=adapter)
    assert training_run(weights) is None
    assert training_time(None) == ""
    adapter.mkdir(parents=True)
    times = {"started": "2026-01-01T10:00:00+00:00", "finished": "2026-01-01T10:01:22+00:00"}
    (tmp_path / "version_3" / "run.json").write_text(json.dumps(times))
    run = training_run(weights)
    assert run is not None
    assert training_time(run) == "1 min 22 s of training, with validation"
    (tmp_path / "version_3" / "run.json").write_text(json.dumps({**times, "finished": "2026-01-01T10:01:22"}))
    assert training_time(run) == ""


def test_hardware_is_short() -> None:
    shown = hardware(torch.device("cpu"), 1)
    assert "core" in shown
    assert shown.endswith("GiB of memory")
