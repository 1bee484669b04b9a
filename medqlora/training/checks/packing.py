"""Whether a model takes packed rows: shown on the model itself, before the first step."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from medqlora.data.batching.packing import MicroBatch, micro_batch
from medqlora.data.checks import at
from medqlora.errors import InputError
from medqlora.inference.scoring import Decodes
from medqlora.planner.fitting import Work, largest_micro_batch
from medqlora.records import Encoded, Record

#: largest difference of a pack's loss from its examples' one by one, over that, or over 1 nat a token where the
#: loss is less: what is rounded in a token of hundreds is mostly gone in their sum
_LOSS_TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}
#: largest difference of hidden states, over their norm, that rounding explains: 32 layers of the
#: Llama-3-8B shape come to 6e-2 in bfloat16 on an H200, and float16 rounds 8 times finer
_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 1.5e-1, torch.float16: 2e-2}
#: the same of examples beside another one in a pack of the same shape, which is rounded alike
_LEAK_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 4e-3}


@torch.no_grad()
def packing_works(
    model: nn.Module, decoder: Decodes, plain: Decodes, examples: Sequence[Encoded], device: torch.device
) -> str | None:
    """None when packed rows give what single rows give; else how far they are apart.

    Compares the last hidden states of every token of a pack with those of each example alone: a pack whose
    attention or positions crossed examples would differ in every example but the first. And compares the other
    examples' in two packs that differ in the first example alone: of the same shape, they are rounded alike, so
    that this shows in 16 bits too what crosses weakly.

    Args:
        model: put into eval mode meanwhile.
        decoder: runs the pack.
        plain: runs each example alone.
        examples: at least two, short ones for speed; of different lengths.
    """
    training = model.training
    model.eval()
    first, *rest = examples
    begins = len(first.prompt) + len(first.completion)
    # another first example of the same length: one token, over and over
    other = [examples[-1].prompt[-1]] * begins
    try:
        together = _hidden(decoder, examples, device)
        beside = _hidden(decoder, [Encoded("", other[:-1], other[-1:]), *rest], device)
        alone = torch.cat([_hidden(plain, [example], device) for example in examples])
    finally:
        model.train(training)
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    errors = (together - alone).norm(dim=-1) / alone.norm(dim=-1)
    # the mean: a router's near tie may send a single token to another expert
    leaks = ((beside - together).norm(dim=-1) / alone.norm(dim=-1))[begins:]
    for error, tolerance in (
        (errors.max().item(), _TOLERANCE.get(dtype, 5e-2)),
        (leaks.mean().item() if len(leaks) else 0.0, _LEAK_TOLERANCE.get(dtype, 1e-2)),
    ):
        if not error <= tolerance:  # not a number is no agreement
            return f"relative difference {error:.1e}, at most {tolerance:.0e} is rounding"
    return None


def check_largest_pack(module: Any, data: Any) -> None:
    """Compares the loss of the largest pack that the first epochs hold with its examples' one by one.

    Args:
        module: the QLoRAModule, its engine chosen.
        data: its datamodule, its training set read.

    Raises:
        InputError: they differ by more than rounding explains; names the example that differs most.
    """
    lengths = [(len(one.prompt), len(one.completion)) for one in data.train]
    work = Work(lengths, data.batch_size, 0, data.seed, module.trainer.world_size)
    _, places = largest_micro_batch(work, data.token_budget)
    examples = [data.train[place] for place in places]
    if len(examples) == 1:
        return
    training = module.model.training
    module.model.eval()
    try:
        with torch.no_grad(), module.trainer.precision_plugin.val_step_context():
            compare_losses(
                module.chosen.decoder,
                module.backend.decoder(module.model),
                examples,
                data.records,
                module.dtype_of_base,
                module.device,
            )
    except torch.OutOfMemoryError:
        return  # the first step will be taken in smaller packs
    finally:
        module.model.train(training)


def compare_losses(
    decoder: Any,
    plain: Any,
    examples: Sequence[Encoded],
    records: Mapping[str, Record],
    dtype: torch.dtype,
    device: torch.device,
) -> None:
    """As `check_largest_pack`, of the pack of these examples.

    Args:
        decoder: runs the pack.
        plain: runs each example alone.
        examples: of the pack.
        records: by id, for the message.
        dtype: what is multiplied in.
        device: where the model is.

    Raises:
        InputError: as `check_largest_pack`.
    """
    together = float(decoder.loss_sum(_pack(examples, device)))
    alone = sum(float(plain.loss_sum(_pack([example], device))) for example in examples)
    tolerance = _LOSS_TOLERANCE.get(dtype, 1e-2)
    tokens = sum(len(one.completion) for one in examples)
    difference = abs(together - alone) / max(alone, tokens)
    if difference <= tolerance:  # not a number is no agreement
        return
    worst = records[examples[_furthest(decoder, plain, examples, device)].id]
    raise InputError(
        f"--data.packing: the loss of the largest pack, {len(examples)} examples, is {together:.6g} together and "
        f"{alone:.6g} one by one (relative difference {difference:.1e}, at most {tolerance:.0e} is rounding), "
        f"furthest apart at {at(worst)} (id {worst.id}): use --data.packing padded"
    )


def _furthest(decoder: Decodes, plain: Decodes, examples: Sequence[Encoded], device: torch.device) -> int:
    """The example whose hidden states differ most."""
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
