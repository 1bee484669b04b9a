"""What all layers share in one pass: positions, bounds of examples, and the rows that are wanted."""

from typing import NamedTuple

import torch
from torch import Tensor

from medqlora.compat.torch import assert_async
from medqlora.data.batching.packing import MicroBatch
from medqlora.fused.attention import Segments, flash_runs
from medqlora.fused.elementwise import Elementwise


class Selection(NamedTuple):
    """What the last layer computes: everything behind its attention at R rows alone.

    Attributes:
        rows: [R] int64: the tokens that are wanted.
        queries: [Q] int64: the tokens whose queries are computed, ascending; None for all.
        places: [R] int64: where `rows` lie among `queries` (or among all).
        segments: of these queries over all keys.
    """

    rows: Tensor
    queries: Tensor | None
    places: Tensor
    segments: Segments


class Step(NamedTuple):
    """One pass over a packed micro-batch of T tokens.

    Attributes:
        cos, sin: [T, d / 2] float32.
        segments: every query over every key.
        selection: for the last layer.
        seed: of this pass's dropout; None for none.
        functions: plain or compiled.
        accumulate: gradients of LoRA's weights are added where they lie, not handed to autograd.
    """

    cos: Tensor
    sin: Tensor
    segments: Segments
    selection: Selection
    seed: int | None
    functions: Elementwise
    accumulate: bool = False


def find_segments(lengths: Tensor, device: torch.device) -> Segments:
    """From examples' lengths [n] on the host; nothing waits for the device."""
    bounds = torch.zeros(len(lengths) + 1, dtype=torch.int32)
    torch.cumsum(lengths, 0, dtype=torch.int32, out=bounds[1:])
    if device.type == "cuda":
        bounds = bounds.pin_memory()
    starts = bounds.to(device, non_blocking=True)
    counts = lengths.tolist()
    return Segments(counts, max(counts), starts, starts)


def select_any(rows: Tensor, segments: Segments) -> Selection:
    """`rows` of any kind and order: the attention runs on every query."""
    return Selection(rows, None, rows, segments)


def select_completions(batch: MicroBatch, segments: Segments, dtype: torch.dtype, width: int) -> Selection:
    """The rows that carry loss, with queries at those rows alone.

    Attention over fewer queries than keys takes them for an example's last. A completion's rows are the
    last but one, for nothing is predicted from the last token: that one is added, and its result unused.

    Args:
        batch: `rows` lead up to each example's last token but one, without a gap, as `pack` makes them.
        segments: of the batch.
        dtype, width: of a query.

    Raises:
        ValueError: `rows` are others (on a GPU, where the host doesn't see them, its own assertion).
    """
    rows, device = batch.rows, batch.rows.device
    if device.type != "cpu" and not flash_runs(device, dtype, width):
        return select_any(rows, segments)  # the number of queries of each example is not on the host
    ends = segments.keys[1:].long() - 1
    queries = torch.cat((rows, ends)).sort().values
    last = torch.searchsorted(ends, queries[:-1]) != torch.searchsorted(ends, queries[1:])
    right = ((queries.diff() == 1) | last).all()
    message = "the rows of a packed micro-batch have to lead up to each example's end without a gap"
    if device.type == "cpu":
        if not right:
            raise ValueError(message)
    else:
        assert_async(right, message)
    bounds = torch.searchsorted(queries, segments.keys.long()).int()
    return Selection(rows, queries, torch.searchsorted(queries, rows), segments._replace(queries=bounds))
