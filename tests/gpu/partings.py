"""Where two programs' texts part, judged by a float32 pass over the same weights.

In bfloat16 the logits of any two programs differ by rounding, so texts part where two tokens are nearly as likely.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch

from medqlora.models.quantization import settle

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Parting(NamedTuple):
    """A text that parts from transformers'.

    Attributes:
        adapter: of the row; None for none.
        row: the prompt and the common tokens.
        mine, other: the first tokens that differ.
        logits: of transformers in the type of the weights, [V] float32 on the host.
    """

    adapter: str | None
    row: list[int]
    mine: int
    other: int
    logits: torch.Tensor


def autocast(dtype: torch.dtype) -> torch.autocast:
    return torch.autocast(DEVICE.type, dtype, enabled=dtype != torch.float32)


@torch.no_grad()
def next_logits(model: Any, row: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """[V] float32 on the host: of the token behind a row, by the model's own forward."""
    with autocast(dtype):
        ids = torch.tensor([row], device=DEVICE)
        return model(input_ids=ids, use_cache=False).logits[0, -1].float().cpu()


def partings(
    model: Any,
    dtype: torch.dtype,
    prompts: Sequence[list[int]],
    mine: Sequence[list[int]],
    theirs: Sequence[list[int]],
    *,
    end: int,
    adapter: str | None = "default",
) -> list[Parting]:
    """The texts that differ; `end` stands behind each."""
    found = []
    for prompt, one, other in zip(prompts, mine, theirs, strict=True):
        if one != other:
            a, b = [*one, end], [*other, end]
            first = next(n for n, pair in enumerate(zip(a, b, strict=False)) if pair[0] != pair[1])
            row = prompt + other[:first]
            found.append(Parting(adapter, row, a[first], b[first], next_logits(model, row, dtype)))
    return found


def to_float32(model: Any) -> None:
    """Computes in float32 from now on, with the same weights."""
    settle(model, DEVICE, torch.float32)
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.float()


def in_roundings(model: Any, found: Sequence[Parting]) -> list[float]:
    """The distance of the two tokens' float32 logits, in twice the largest error of transformers' own at that place.

    Up to 1 it is explained by rounding. The model computes in float32.
    """
    shares = []
    for each in found:
        if each.adapter is not None:
            model.set_adapter(each.adapter)
        with model.disable_adapter() if each.adapter is None else nullcontext():
            exact = next_logits(model, each.row, torch.float32)
        error = (exact - each.logits).abs().max().item()
        shares.append(abs(exact[each.mine] - exact[each.other]).item() / (2 * error))
    return shares
