"""Running out of memory inside a step costs time and nothing else."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from harness import adapter_weights, options, questions, run, write_rows
from tokenizer_families import family

from medqlora.data import JSONLines
from medqlora.datamodule import PubMedQADataModule
from medqlora.models import Decoder


@pytest.fixture
def words(tiny_bases: dict[str, Path], tmp_path: Path) -> list[str]:
    short = ["--trainer.max_epochs=1", "--trainer.limit_val_batches=0", "--data.micro_batch_tokens=100000"]
    return [*options(tiny_bases["llama"], tmp_path), *short]


def limit(monkeypatch: pytest.MonkeyPatch, tokens: int) -> list[int]:
    """From now on a pass of more than `tokens` fails, half way through it; what was let through is listed."""
    passed: list[int] = []
    original = Decoder.loss_sum

    def limited(self: Decoder, batch: Any) -> torch.Tensor:
        loss = original(self, batch)
        if batch.input_ids.numel() > tokens:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        passed.append(batch.input_ids.numel())
        return loss

    monkeypatch.setattr(Decoder, "loss_sum", limited)
    return passed


def losses(cli: Any) -> list[float]:
    from tensorboard_events import logged

    return [value for _, value in logged(Path(cli.trainer.log_dir), "train/loss")]


def test_the_step_is_done_again_in_smaller_pieces_with_the_same_result(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = run("fit", words)
    passed = limit(monkeypatch, 200)
    halved = run("fit", words)
    assert losses(halved) == pytest.approx(losses(whole), rel=1e-5)
    assert halved.trainer.global_step == whole.trainer.global_step == 6
    for name, value in adapter_weights(whole).items():
        assert torch.allclose(adapter_weights(halved)[name], value, atol=1e-4), name
    assert passed
    assert max(passed) <= 200
    assert halved.datamodule.micro_batch_tokens <= 400  # the steps after it begin with what fits
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Out of memory: ")]
    assert 1 <= len(said) <= 3
    assert "instead of 100000; the result is the same" in said[0]


def test_an_example_that_does_not_fit_alone_ends_the_run_with_what_to_do(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(monkeypatch, 60)
    with pytest.raises(torch.OutOfMemoryError, match=r"one example at a time \(\d+ tokens\): lower --data"):
        run("fit", words)


def test_processes_of_which_one_lowered_its_budget_still_ask_every_question_once(
    tmp_path: Path,
) -> None:
    write_rows(tmp_path / "train.jsonl", questions(60))
    parts = []
    for rank in range(2):
        data = PubMedQADataModule(
            JSONLines(str(tmp_path / "train.jsonl"), dev_fraction=0.5), micro_batch_tokens=60
        )
        data.read(family("llama3"), ("dev",), report=lambda line: None)
        data.trainer = SimpleNamespace(global_rank=rank, world_size=2)  # type: ignore[assignment]
        if rank == 1:
            data.budget.lower()
        assert data.token_budget == (60, 30)[rank]
        parts += [example.id for batch in data.val_dataloader() for example in batch.examples]
    assert len(data.val_dataloader()) > 0
    assert sorted(parts) == sorted(example.id for example in data.dev)
    assert len(parts) > 2
