"""Steps by captured passes, with graphs that run on a CPU: what surrounds a replay is the same there.

The graphs of `tests/gpu/graph_steps.py` are real ones.
"""

import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from fused_models import examples, load
from torch import Tensor

from medqlora.config import StepOptions
from medqlora.data.batching.packing import StepBatch, pack, step_batch
from medqlora.fused import FusedDecoder, StepGraphs
from medqlora.fused.buckets import Bucket
from medqlora.fused.seeds import DeviceSeed
from medqlora.fused.step_graphs import Captured
from medqlora.training.optim import build_optimizer
from medqlora.training.step import TorchDriver, TrainStep

CPU = torch.device("cpu")
LENGTHS = [(40, 9), (30, 12), (61, 3), (20, 20), (33, 7), (90, 1)]
EXAMPLES = examples(*LENGTHS)


class OnCPU(StepGraphs):
    """Captures a pass as functions on the same tensors: a replay reads and writes the captured ones alone."""

    def __init__(self, decoder: FusedDecoder, error: Exception | None = None) -> None:
        super().__init__(decoder, 128, capture=False)
        self._captures = True
        self.error = error
        self.sizes: list[Bucket] = []

    def _capture(self, bucket: Bucket, seeded: bool) -> Captured:
        if self.error is not None:
            raise self.error
        self.sizes.append(bucket)
        inputs, loss = self._inputs(bucket), torch.zeros(())
        live: list[Tensor] = []

        def forward() -> None:
            with torch.enable_grad():
                live[:] = [self._run(inputs, DeviceSeed(self._seed) if seeded else None)]
            loss.copy_(live[0].detach())

        def backward() -> None:
            live.pop().backward(self._gradient)

        return Captured(inputs, SimpleNamespace(replay=forward), SimpleNamespace(replay=backward), loss)


def trained(
    base: Path, make: Callable[[FusedDecoder], object], tokens: int = 128, steps: int = 6
) -> tuple[list[float], list[Tensor], FusedDecoder]:
    """Losses of steps, the weights after them, and the decoder."""
    model = load(base)
    decoder = FusedDecoder(model, checkpointing=1)
    make(decoder)
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    optimizer = build_optimizer("adamw", named, learning_rate=1e-3, weight_decay=0.0)
    train = TrainStep(decoder, optimizer, StepOptions(), device=CPU, driver=TorchDriver(CPU))
    batches: list[StepBatch] = [step_batch(EXAMPLES[start % 3 :], tokens) for start in range(steps)]
    losses = [float(train.step(batch).loss) for batch in batches]
    return losses, [parameter.detach().clone() for _, parameter in named], decoder


def test_captured_steps_are_the_steps(folders: Callable[[str], Path]) -> None:
    graphs: list[OnCPU] = []
    losses, weights, _ = trained(folders("llama"), lambda decoder: None)
    captured, others, _ = trained(folders("llama"), lambda decoder: graphs.append(OnCPU(decoder)))
    assert captured == pytest.approx(losses, rel=1e-5)
    # AdamW's first steps are of the size of the rate, whatever the gradient
    assert all(torch.allclose(one, other, atol=2e-4) for one, other in zip(weights, others, strict=True))
    # a size is captured once
    assert graphs[0].captures == len(graphs[0].sizes) == len(set(graphs[0].sizes)) > 1
    assert "CUDA graphs for" in str(graphs[0].summary())


def test_padded_steps_with_and_without_capture_have_the_same_bits(folders: Callable[[str], Path]) -> None:
    losses, weights, _ = trained(folders("qwen3"), lambda decoder: StepGraphs(decoder, 128, capture=False))
    captured, others, _ = trained(folders("qwen3"), OnCPU)
    assert captured == losses
    assert all(torch.equal(one, other) for one, other in zip(weights, others, strict=True))


def test_where_a_capture_fails_the_steps_run_without_graphs_and_a_line_says_so(
    folders: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    expected, _, _ = trained(folders("llama"), lambda decoder: None)
    losses, _, decoder = trained(
        folders("llama"), lambda decoder: OnCPU(decoder, RuntimeError("no capture\nhere"))
    )
    assert losses == pytest.approx(expected, rel=1e-5)
    assert decoder.graphs is not None
    assert not decoder.graphs.on
    assert decoder.graphs.summary() is None
    said = [line for line in capsys.readouterr().out.splitlines() if "CUDA graphs" in line]
    assert said == ["Training steps: without CUDA graphs, a capture failed (no capture)"]


def test_memory_that_runs_out_in_a_capture_reaches_the_step_and_frees_the_graphs(
    folders: Callable[[str], Path],
) -> None:
    graphs: list[OnCPU] = []

    def make(decoder: FusedDecoder) -> None:
        graphs.append(OnCPU(decoder))

    _, _, decoder = trained(folders("llama"), make, steps=3)
    (captured,) = graphs
    captured.error = torch.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(torch.OutOfMemoryError):
        decoder.loss_sum(pack(examples((300, 5))))
    assert captured.on
    before = captured.captures
    captured.error = None
    decoder.loss_sum(pack(EXAMPLES[:2])).backward()
    assert captured.captures == before + 1  # all were forgotten


def test_a_backward_after_the_next_pass_raises(folders: Callable[[str], Path]) -> None:
    graphs: list[OnCPU] = []
    _, _, decoder = trained(folders("llama"), lambda decoder: graphs.append(OnCPU(decoder)), steps=2)
    first = decoder.loss_sum(pack(EXAMPLES[:2]))
    second = decoder.loss_sum(pack(EXAMPLES[:2]))
    with pytest.raises(RuntimeError, match="overwritten by a later one"):
        first.backward()
    second.backward()


def test_a_decoder_with_graphs_is_freed_without_a_garbage_collection(folders: Callable[[str], Path]) -> None:
    _, _, decoder = trained(folders("llama"), OnCPU, steps=2)
    alive = weakref.ref(decoder)
    gc.disable()
    try:
        del decoder
        assert alive() is None
    finally:
        gc.enable()


def test_new_gradient_tensors_are_captured_anew(folders: Callable[[str], Path]) -> None:
    graphs: list[OnCPU] = []
    _, _, decoder = trained(folders("llama"), lambda decoder: graphs.append(OnCPU(decoder)), steps=2)
    decoder.loss_sum(pack(EXAMPLES[:2])).backward()
    before = graphs[0].captures
    decoder.loss_sum(pack(EXAMPLES[:2])).backward()
    assert graphs[0].captures == before
    kept = [parameter.grad for parameter in decoder.parameters]
    for parameter in decoder.parameters:
        parameter.grad = torch.zeros_like(parameter)
    decoder.loss_sum(pack(EXAMPLES[:2])).backward()
    assert graphs[0].captures == before + 1
    assert decoder.parameters[0].grad is not kept[0]
    assert any(bool(parameter.grad.any()) for parameter in decoder.parameters if parameter.grad is not None)
