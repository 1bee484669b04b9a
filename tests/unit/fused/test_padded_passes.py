"""Padded micro-batches, which CUDA graphs need: the same loss and gradients as the micro-batch without padding."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fused_models import VARIANTS, assert_same, examples, load
from tiny import build_base
from torch import Tensor

from medqlora.data.batching.packing import MicroBatch, pack, step_batch
from medqlora.fused import Checkpointing, FusedDecoder, StepGraphs, why_no_graphs
from medqlora.fused import decoder as decoder_module
from medqlora.fused.buckets import Bucket, PaddedInputs, find_bucket, padded_rows, padded_tokens
from medqlora.fused.kernels.elementwise import IGNORED
from medqlora.fused.step import select_any
from medqlora.models import LoRA
from medqlora.models.host_weights import to_host

CPU = torch.device("cpu")
#: relative, float32: other shapes sum in another order
TOLERANCE = 1e-6


def accumulated(
    model: Any, batch: MicroBatch, *, padded: bool, checkpointing: Checkpointing = "none", seed: int = 0
) -> tuple[float, dict[str, Tensor]]:
    """The loss, and the gradients that the backward adds in place."""
    decoder = FusedDecoder(model, checkpointing=checkpointing)
    decoder.accumulate = True
    if padded:
        StepGraphs(decoder, 2048, capture=False)
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    for parameter in trained.values():
        parameter.grad = torch.zeros_like(parameter)
    torch.manual_seed(seed)
    loss = decoder.loss_sum(batch)
    (loss / 7).backward()
    gradients = {}
    for name, parameter in trained.items():
        assert parameter.grad is not None
        gradients[name], parameter.grad = parameter.grad, None
    return loss.item(), gradients


def assert_padding_changes_nothing(model: Any, batch: MicroBatch, **options: Any) -> None:
    loss, gradients = accumulated(model, batch, padded=False, **options)
    padded, others = accumulated(model, batch, padded=True, **options)
    assert padded == pytest.approx(loss, rel=TOLERANCE)
    assert_same(others, gradients, TOLERANCE)
    assert any(gradient.abs().max() > 0 for gradient in gradients.values())


@pytest.mark.parametrize("variant", VARIANTS)
def test_padding_changes_no_loss_and_no_gradient_of_a_family(
    variant: str, folders: Callable[[str], Path]
) -> None:
    model = load(folders(variant))
    assert_padding_changes_nothing(model, pack(examples()), checkpointing="none")
    assert_padding_changes_nothing(model, pack(examples((30, 9))), checkpointing="offload")


def test_nor_with_dropout_whose_masks_are_those_of_the_same_rows(
    folders: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    # a padded pass runs every query of the last layer, and the mask belongs to the row
    monkeypatch.setattr(
        decoder_module, "select_completions", lambda batch, segments, *_: select_any(batch.rows, segments)
    )
    model = load(folders("llama"), LoRA(r=5, alpha=9, dropout=0.3)).train()
    assert_padding_changes_nothing(model, pack(examples()), checkpointing=1, seed=3)
    one, other = (accumulated(model, pack(examples()), padded=True, seed=seed) for seed in (3, 4))
    assert one[0] != other[0]


def test_two_padded_passes_before_their_backwards_keep_their_own_masks(
    folders: Callable[[str], Path],
) -> None:
    model = load(folders("llama"), LoRA(r=5, alpha=9, dropout=0.3)).train()
    decoder = FusedDecoder(model, checkpointing="full")
    decoder.accumulate = True
    StepGraphs(decoder, 2048, capture=False)
    found = []
    for interleaved in (False, True):
        for parameter in decoder.parameters:
            parameter.grad = torch.zeros_like(parameter)
        torch.manual_seed(5)
        losses = []
        for shape in ((11, 4), (9, 6)):
            losses.append(decoder.loss_sum(pack(examples(shape))))
            if not interleaved:
                losses[-1].backward()
        if interleaved:
            for loss in losses:
                loss.backward()
        found.append([parameter.grad for parameter in decoder.parameters])
    for one, other in zip(*found, strict=True):
        assert one is not None
        assert torch.equal(one, other)


def test_nor_with_padding_longer_than_the_attention_window(tmp_path: Path) -> None:
    model = load(build_base(tmp_path, "mistral", layers=2, sliding_window=24))
    assert_padding_changes_nothing(model, pack(examples()), checkpointing="full")


def test_nor_with_embedding_and_head_on_the_host(folders: Callable[[str], Path]) -> None:
    model = load(folders("tied"))
    to_host(model, embedding=True, head=True)
    assert_padding_changes_nothing(model, pack(examples()))


def test_a_bucket_holds_its_micro_batch_and_few_buckets_serve_all() -> None:
    generator = torch.Generator().manual_seed(0)
    seen: set[Bucket] = set()
    for _ in range(400):
        lengths = torch.randint(
            200, 500, (int(torch.randint(1, 6, (), generator=generator)),), generator=generator
        )
        shapes = [(int(length) * 6 // 7, int(length) - int(length) * 6 // 7) for length in lengths]
        batch = pack(examples(*shapes))
        bucket = find_bucket(batch, largest=2048)
        seen.add(bucket)
        tokens, rows = int(lengths.sum()), len(batch.rows)
        assert tokens <= bucket.tokens < tokens + 256
        assert rows <= bucket.rows <= bucket.tokens
        assert bucket.longest >= lengths.max()
        assert bucket.segments > len(lengths)
    assert len(seen) <= 48
    assert padded_tokens(2048) == 2048
    assert padded_rows(2048, 285) == 384


def test_processes_pad_their_shares_of_a_step_to_the_same_size() -> None:
    shapes = [(300 + 13 * number, 54) for number in range(8)]
    steps = [step_batch(examples(*shapes), 8192, rank=rank, world_size=3) for rank in range(3)]
    sizes = {step.tokens for step in steps}
    assert len(sizes) > 1
    assert {step.largest_share for step in steps} == {max(sizes)}
    buckets = {find_bucket(step.micro_batches[0], None, 4096, step.largest_share).tokens for step in steps}
    assert buckets == {padded_tokens(max(sizes), 4096)}


@pytest.mark.parametrize("shapes", [[(200, 56)], [(1, 255)], [(9, 4), (3, 1)], [(2, 1)] * 100, [(700, 800)]])
def test_padded_inputs_hold_the_micro_batch_and_rows_without_loss(shapes: list[tuple[int, int]]) -> None:
    batch = pack(examples(*shapes))
    bucket = find_bucket(batch)
    inputs = PaddedInputs(bucket, CPU)
    inputs.load(pack(examples((bucket.tokens - 3, 3))))  # a full one before it
    inputs.load(batch)
    tokens, rows = batch.input_ids.numel(), len(batch.rows)
    assert torch.equal(inputs.batch.input_ids[:, :tokens], batch.input_ids)
    assert torch.equal(inputs.batch.position_ids[:, :tokens], batch.position_ids)
    assert not inputs.batch.input_ids[:, tokens:].any()
    assert not inputs.batch.position_ids[:, tokens:].any()
    assert torch.equal(inputs.batch.rows[:rows], batch.rows)
    assert torch.equal(inputs.batch.targets[:rows], batch.targets)
    assert (inputs.batch.targets[rows:] == IGNORED).all()
    padding = inputs.batch.rows[rows:]
    assert len(set(padding.tolist())) == len(padding)
    assert (padding >= 0).all()
    steps = inputs.bounds.diff()
    assert inputs.bounds[0] == 0
    assert steps.sum() == bucket.tokens
    assert steps.max() <= bucket.longest
    assert torch.equal(steps[: len(batch.lengths)], batch.lengths)
    assert inputs.segments.lengths == steps[steps > 0].tolist()


def test_graphs_need_a_gpu_and_say_so(folders: Callable[[str], Path]) -> None:
    decoder = FusedDecoder(load(folders("llama")))
    assert why_no_graphs(decoder) == "there is no GPU"
    with pytest.raises(ValueError, match="can't be CUDA graphs: there is no GPU"):
        StepGraphs(decoder)
    assert decoder.graphs is None
