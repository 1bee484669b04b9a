"""Preflight on a fit that fits, and on ones that do not; the peaks of a GPU are given."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from harness import questions, write_rows
from tokenizer_families import family
from transformers import LlamaConfig

from medqlora.config import DataOptions, ModelOptions
from medqlora.data import JSONLines
from medqlora.data.batching.packing import MicroBatch
from medqlora.data.stage_data import StageData
from medqlora.inference.evaluator import Evaluator
from medqlora.models import LoRA, Transformers
from medqlora.planner import Shape
from medqlora.training.checks.preflight import preflight
from medqlora.training.fit_plan import FitOptions, FitPlan, plan_fit

CPU = torch.device("cpu")


class Trial:
    """A fit whose memory holds `most` tokens at once."""

    def __init__(self, most: int, *, evaluates: bool = True) -> None:
        self.most, self.evaluates = most, evaluates
        self.tokens: list[int] = []
        self.evaluations = self.joins = 0

    def train(self, micro: MicroBatch) -> None:
        torch.rand(3)  # dropout
        self.tokens.append(micro.input_ids.numel())
        if micro.input_ids.numel() > self.most:
            raise torch.OutOfMemoryError

    def evaluate(self, run: Callable[[Evaluator], object]) -> None:
        self.evaluations += 1
        if not self.evaluates:
            raise torch.OutOfMemoryError

    def join(self) -> None:
        self.joins += 1


@pytest.fixture
def fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[StageData, FitPlan]:
    def peak(run: Callable[[], object], device: torch.device) -> int | None:
        try:
            run()
        except torch.OutOfMemoryError:
            return None
        return 2**30

    monkeypatch.setattr("medqlora.training.checks.preflight._peak", peak)
    files = {
        name: str(write_rows(tmp_path / f"{name}.jsonl", questions(8, start)))
        for name, start in (("train", 0), ("dev", 100))
    }
    data = StageData(JSONLines(**files), None, DataOptions(batch_size=8, micro_batch_tokens=300))  # type: ignore[arg-type]
    data.read(family("llama3"), ("train", "dev"), report=lambda line: None)
    data.train_loader(packed=True)
    config = LlamaConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=1, vocab_size=1000)
    options = FitOptions(
        Transformers("a-base"), LoRA(), ModelOptions(), data.options, "adamw", data.budget.option
    )
    planned = plan_fit(Shape.of(config), options, data.train_lengths, fused=False, width=4, memory=None)
    assert planned.micro_batch_tokens == 300
    return data, planned


def test_the_largest_batches_run_once_and_leave_the_random_state(
    fit: tuple[StageData, FitPlan], capsys: pytest.CaptureFixture[str]
) -> None:
    data, planned = fit
    trial, before = Trial(1000), torch.get_rng_state()
    found = preflight(trial, data, planned, CPU)
    assert torch.equal(torch.get_rng_state(), before)
    assert (len(trial.tokens), trial.evaluations, trial.joins) == (1, 1, 2)
    assert 200 < trial.tokens[0] <= 300
    assert (found["fit"], found["validate"]) == (2**30, 2**30)
    assert re.search(rf"^Preflight: {trial.tokens[0]} tokens at once take 1.00 GiB", capsys.readouterr().out)
    assert data.budget.value == 300


def test_a_micro_batch_that_is_too_large_lowers_the_budget(
    fit: tuple[StageData, FitPlan], capsys: pytest.CaptureFixture[str]
) -> None:
    data, planned = fit
    trial = Trial(160)
    preflight(trial, data, planned, CPU)
    assert (data.budget.value, data.budget.common) == (150, 300)
    assert trial.tokens[-1] <= 150 < trial.tokens[0]
    assert "micro-batches of 150 tokens instead of 300" in capsys.readouterr().out


def test_an_example_or_a_validation_that_does_not_fit_ends_the_run(fit: tuple[StageData, FitPlan]) -> None:
    data, planned = fit
    with pytest.raises(torch.OutOfMemoryError, match=r"in validation: lower --data\.eval_batch_size"):
        preflight(Trial(1000, evaluates=False), data, planned, CPU)
    with pytest.raises(torch.OutOfMemoryError, match=r"one example of \d+ tokens: lower --data.max_prompt"):
        preflight(Trial(5), data, planned, CPU)
