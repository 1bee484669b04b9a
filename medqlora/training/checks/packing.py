"""Whether a model gives the same result on packed rows: compared on the model itself, before the first step."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import torch
from torch import Tensor, nn

from medqlora.data.batching.packing import MicroBatch, micro_batch
from medqlora.data.checks import at
from medqlora.data.stage_data import StageData
from medqlora.errors import InputError
from medqlora.inference.scoring import Decodes
from medqlora.planner.fitting import Work, largest_micro_batch
from medqlora.records import Encoded, Record
from medqlora.utils.progress import Bar, phase

#: largest difference between a pack's loss and the sum of its examples' losses, relative to that sum, or to 1 nat a
#: token where the sum is less; the rounding errors of hundreds of tokens mostly cancel
_LOSS_TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}
#: the same against another implementation, which rounds elsewhere: label log-likelihoods of transformers in bfloat16
#: are 1.7% from float32's, and 0.3% from the fused engine's (`tests/gpu/label_scores.py`)
_OTHER_ENGINE_TOLERANCE = {torch.bfloat16: 5e-2, torch.float16: 1e-2}
#: largest relative difference of hidden states that rounding explains: 32 layers of the Llama-3-8B shape reach
#: 6e-2 in bfloat16 on an H200, and float16 rounds 8 times finer
_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 1.5e-1, torch.float16: 2e-2}
#: the same for two packs of the same shape, which are rounded alike
_LEAK_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 4e-3}


class LossDecodes(Decodes, Protocol):
    """A decoder that also computes the loss."""

    def loss_sum(self, batch: MicroBatch) -> Tensor:
        """Cross-entropy summed over the completion tokens, [] float32."""


@torch.no_grad()
def packing_works(
    model: nn.Module, decoder: Decodes, plain: Decodes, examples: Sequence[Encoded], device: torch.device
) -> str | None:
    """Returns None where packed rows give the result of single rows; else the size of the difference.

    Compares the last hidden states of a pack with those of each example alone: attention or positions that cross
    examples would change every example but the first. Then compares two packs that differ in their first example
    only: they have the same shape and are rounded alike, so a weak leak shows in 16 bits too.

    Args:
        model: put into eval mode meanwhile.
        decoder: runs the pack.
        plain: runs each example alone.
        examples: at least two short ones, of different lengths.
        device: where the model is.
    """
    training = model.training
    model.eval()
    first, *rest = examples
    begins = len(first.prompt) + len(first.completion)
    # another first example of the same length, which repeats one token
    other = [examples[-1].prompt[-1]] * begins
    try:
        together = _hidden(decoder, examples, device)
        beside = _hidden(decoder, [Encoded("", other[:-1], other[-1:]), *rest], device)
        alone = torch.cat([_hidden(plain, [example], device) for example in examples])
    finally:
        model.train(training)
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    errors = (together - alone).norm(dim=-1) / alone.norm(dim=-1)
    # the mean: rounding may send a single token to another expert of a router
    leaks = ((beside - together).norm(dim=-1) / alone.norm(dim=-1))[begins:]
    for error, tolerance in (
        (errors.max().item(), _TOLERANCE.get(dtype, 5e-2)),
        (leaks.mean().item() if len(leaks) else 0.0, _LEAK_TOLERANCE.get(dtype, 1e-2)),
    ):
        if not error <= tolerance:  # false for NaN
            return f"relative difference {error:.1e}, at most {tolerance:.0e} is rounding"
    return None


def check_largest_pack(
    model: nn.Module,
    decoder: LossDecodes,
    plain: LossDecodes,
    data: StageData,
    *,
    devices: int,
    precision: Callable[[], AbstractContextManager[object]],
    dtype: torch.dtype,
    device: torch.device,
) -> None:
    """Compares the loss of the largest pack of the first epochs with the losses of its examples one by one.

    Args:
        model: put into eval mode meanwhile.
        decoder: runs the pack.
        plain: runs each example alone.
        data: with its training set.
        devices: processes that share each step.
        precision: returns the context of a forward pass.
        dtype: data type of the products.
        device: where the model is.

    Raises:
        InputError: the losses differ by more than rounding; names the example that differs most.
    """
    work = Work(data.train_lengths, data.batch_size, 0, data.seed, devices)
    _, indices = largest_micro_batch(work, data.token_budget)
    examples = [data.train[index] for index in indices]
    if len(examples) == 1:
        return
    training = model.training
    model.eval()
    try:
        with (
            torch.no_grad(),
            precision(),
            phase("Comparing the largest pack", len(examples), "examples") as bar,
        ):
            compare_losses(decoder, plain, examples, data.records, dtype, device, bar)
    except torch.OutOfMemoryError:
        return  # the first step will use smaller packs
    finally:
        model.train(training)


def compare_losses(
    decoder: LossDecodes,
    plain: LossDecodes,
    examples: Sequence[Encoded],
    records: Mapping[str, Record],
    dtype: torch.dtype,
    device: torch.device,
    bar: Bar | None = None,
) -> None:
    """As `check_largest_pack`, for the pack of these examples; `records` name the example in the message.

    In 16 bits `plain` may round more than packing does: then the pack is compared with `decoder`'s own single examples.
    """
    bar = bar or Bar("", shown=False)
    tokens = [len(example.prompt) + len(example.completion) for example in examples]
    together = float(decoder.loss_sum(_pack(examples, device)))
    bar.update(0, share=0.5)
    alone = 0.0
    for number, example in enumerate(examples, 1):
        alone += float(plain.loss_sum(_pack([example], device)))
        bar.update(number, share=0.5 + 0.5 * sum(tokens[:number]) / sum(tokens))
    tolerance = _LOSS_TOLERANCE.get(dtype, 1e-2)
    completions = sum(len(example.completion) for example in examples)
    difference = abs(together - alone) / max(alone, completions)
    if difference <= tolerance:  # false for NaN
        return
    if plain is not decoder and difference <= _OTHER_ENGINE_TOLERANCE.get(dtype, tolerance):
        own = sum(float(decoder.loss_sum(_pack([example], device))) for example in examples)
        if abs(together - own) / max(own, completions) <= tolerance:
            return
    worst = records[examples[_furthest(decoder, plain, examples, device)].id]
    raise InputError(
        f"--data.packing: the loss of the largest pack, {len(examples)} examples, is {together:.6g} together and "
        f"{alone:.6g} one by one (relative difference {difference:.1e}, at most {tolerance:.0e} is rounding), "
        f"furthest apart at {at(worst)} (id {worst.id}): use --data.packing padded"
    )


def _furthest(decoder: Decodes, plain: Decodes, examples: Sequence[Encoded], device: torch.device) -> int:
    """Index of the example whose hidden states differ most."""
    together = _hidden(decoder, examples, device)
    sizes = [len(one.prompt) + len(one.completion) for one in examples]
    differences = []
    for packed, example in zip(together.split(sizes), examples, strict=True):
        single = _hidden(plain, [example], device)
        differences.append(float(((packed - single).norm() / single.norm()).nan_to_num(nan=torch.inf)))
    return max(range(len(examples)), key=differences.__getitem__)


def _pack(examples: Sequence[Encoded], device: torch.device) -> MicroBatch:
    return micro_batch(examples, packed=True, pad_token_id=0).to(device)


def _hidden(decoder: Decodes, examples: Sequence[Encoded], device: torch.device) -> Tensor:
    batch = _pack(examples, device)
    return decoder.hidden(batch, torch.arange(batch.input_ids.numel(), device=device)).float()
