"""The inputs of one pass that all layers share: positions, bounds of examples, and the selected rows."""

from typing import NamedTuple

import torch
from torch import Tensor

from medqlora.compat.torch import assert_async
from medqlora.data.batching.packing import MicroBatch
from medqlora.fused.host_inputs import HostInputs
from medqlora.fused.kernels.attention import Segments, flash_runs
from medqlora.fused.kernels.elementwise import Elementwise
from medqlora.fused.seeds import Seed


class Selection(NamedTuple):
    """The tokens that the last layer computes: after its attention it runs at R rows only.

    Attributes:
        rows: [R] int64: indices of the selected tokens.
        queries: [Q] int64: indices of the tokens with queries, ascending; None for all tokens.
        places: [R] int64: indices of `rows` in `queries` (or in all tokens).
        segments: bounds of these queries over all keys.
    """

    rows: Tensor
    queries: Tensor | None
    places: Tensor
    segments: Segments


class Widened:
    """The gradient of a layer's input, as the first columns of an operand of the layer below."""

    def __init__(self) -> None:
        self._operand: Tensor | None = None

    def give(self, operand: Tensor, columns: int) -> Tensor:
        """The first columns of an operand, which `take` returns for them."""
        self._operand = operand
        return operand[:, :columns]

    def take(self, gradient: Tensor, columns: int) -> Tensor | None:
        """The operand of that many columns of which a gradient is the first ones; None for any other gradient."""
        operand, self._operand = self._operand, None
        if operand is None or operand.shape[1] != columns:
            return None
        mine = operand.data_ptr() == gradient.data_ptr() and operand.stride() == gradient.stride()
        return operand if mine else None


class Step(NamedTuple):
    """One pass over a packed micro-batch of T tokens.

    Attributes:
        cos, sin: [T, d / 2] float32.
        segments: bounds of all queries over all keys.
        selection: for the last layer.
        seed: of this pass's dropout; None for none.
        functions: plain or compiled.
        inputs: of the layers, where activation checkpointing keeps them in host memory.
        accumulate: adds LoRA gradients to `.grad` in place; autograd receives none.
        widened: the gradient between two layers.
    """

    cos: Tensor
    sin: Tensor
    segments: Segments
    selection: Selection
    seed: Seed | None
    functions: Elementwise
    inputs: HostInputs
    accumulate: bool
    widened: Widened


def find_segments(lengths: Tensor, device: torch.device) -> Segments:
    """Bounds from the examples' lengths [n] on the host, without a device sync."""
    bounds = torch.zeros(len(lengths) + 1, dtype=torch.int32)
    torch.cumsum(lengths, 0, dtype=torch.int32, out=bounds[1:])
    if device.type == "cuda":
        bounds = bounds.pin_memory()
    starts = bounds.to(device, non_blocking=True)
    counts = lengths.tolist()
    return Segments(counts, max(counts), starts, starts)


def select_any(rows: Tensor, segments: Segments) -> Selection:
    """A selection of any rows in any order: attention runs on every query."""
    return Selection(rows, None, rows, segments)


def select_completions(batch: MicroBatch, segments: Segments, dtype: torch.dtype, width: int) -> Selection:
    """A selection of the rows that carry loss, with few more queries than rows.

    Attention takes fewer queries than keys for the last tokens of an example. A completion's rows end one token
    before the example's end, because its last token predicts nothing. So the last token becomes a query too, and
    its result is unused.

    Args:
        batch: from `pack`: the rows of an example are consecutive and end at its last token but one.
        segments: of the batch.
        dtype, width: of a query.

    Raises:
        ValueError: the rows are different. On a GPU an asynchronous device assertion fails instead.
    """
    rows, device = batch.rows, batch.rows.device
    if device.type != "cpu" and not flash_runs(device, dtype, width):
        return select_any(rows, segments)  # the host doesn't know the query counts
    ends = segments.keys[1:].long() - 1
    queries = torch.cat((rows, ends)).sort().values
    last = torch.searchsorted(ends, queries[:-1]) != torch.searchsorted(ends, queries[1:])
    right = ((queries.diff() == 1) | last).all()
    message = "the rows of a packed micro-batch must be consecutive up to each example's end"
    if device.type == "cpu":
        if not right:
            raise ValueError(message)
    else:
        assert_async(right, message)
    bounds = torch.searchsorted(queries, segments.keys.long()).int()
    return Selection(rows, queries, torch.searchsorted(queries, rows), segments._replace(queries=bounds))
