"""Padded micro-batches: training passes of equal sizes, so that few CUDA graphs serve all of them."""

from typing import NamedTuple

import torch
from torch import Tensor

from medqlora.data.batching.packing import MicroBatch
from medqlora.fused.kernels.attention import Segments
from medqlora.fused.kernels.elementwise import IGNORED

#: tokens of a micro-batch up to which graphs save more time than padding takes: measured on an H200
LARGEST = 5120
#: (share of the largest micro-batch, multiple): above that share, tokens are padded to a multiple. Most micro-batches
#: are nearly full, and few sizes are enough for the others. Products over a multiple of 128 rows are no slower than
#: those over 64 rows less.
_MULTIPLES = ((0.5, 128), (0.0, 256))
#: the rows with loss are padded to one of these sixteenths of the tokens: questions have about two
_ROWS = (3, 4, 6, 8, 12, 16)
#: the least length for which the attention's launch is sized
_LONGEST = 1024
#: the least number of examples, and the tokens for each of which one more is provided
_SEGMENTS, _TOKENS_PER_SEGMENT = 8, 256


class Bucket(NamedTuple):
    """The sizes of a padded micro-batch: passes with the same ones launch the same kernels.

    Attributes:
        tokens: padding included.
        rows: with loss, padding included.
        segments: examples, padding and empty ones included.
        longest: the length that the attention's launch is sized for; no segment is longer.
    """

    tokens: int
    rows: int
    segments: int
    longest: int


def find_bucket(batch: MicroBatch, window: int | None = None, largest: int = 0, least: int = 0) -> Bucket:
    """The least bucket that holds a packed micro-batch.

    Args:
        batch: packed.
        window: of the model's attention; no segment gets longer, so that the attention needs no window.
        largest: tokens of the largest micro-batch that is expected.
        least: tokens of a micro-batch that the bucket has to hold too, such as that of another process.
    """
    length = int(batch.lengths.max())
    count = batch.input_ids.shape[1]
    tokens = padded_tokens(max(count, least), largest)
    rows = padded_rows(tokens, len(batch.rows))
    longest = max(_LONGEST, 1 << (length - 1).bit_length())
    if window is not None:
        longest = min(longest, window)
    segments = max(_SEGMENTS, tokens // _TOKENS_PER_SEGMENT)
    while segments < len(batch.lengths) + len(_padding(tokens - count, longest)):
        segments *= 2
    return Bucket(tokens, rows, segments, longest)


def padded_tokens(count: int, largest: int = 0) -> int:
    """The tokens of the bucket of a micro-batch with `count` tokens; `largest` as in `find_bucket`."""
    return next(_up(count, multiple) for share, multiple in _MULTIPLES if count > share * largest)


def padded_rows(tokens: int, count: int) -> int:
    """The rows with loss of the bucket of a micro-batch with `count` of them, padded to `tokens` tokens."""
    return next(tokens * share // 16 for share in _ROWS if tokens * share // 16 >= count)


class PaddedInputs:
    """The inputs of passes of one bucket, in buffers that stay in place.

    The padding tokens are examples of their own, without loss: every gradient that they get is exactly 0. Padding rows
    carry the target `IGNORED`, which adds nothing to the loss.

    Args:
        bucket: the sizes.
        device: of the buffers.
        embedded: [tokens, D]: the embeddings of the tokens, where the caller fills them; None where the pass embeds.

    Attributes:
        batch: the padded micro-batch. Its `lengths` are those of the last load, without empty examples.
        bounds: [segments + 1] int32: cumulative token counts; empty examples are at the end.
    """

    def __init__(self, bucket: Bucket, device: torch.device, embedded: Tensor | None = None) -> None:
        self.bucket, self.embedded = bucket, embedded
        tokens, rows, segments, _ = bucket

        def zeros(count: int) -> Tensor:
            return torch.zeros(count, dtype=torch.int64, device=device)

        self.batch = MicroBatch(
            zeros(tokens)[None], zeros(tokens)[None], None, torch.zeros(0), zeros(rows), zeros(rows)
        )
        self.bounds = torch.zeros(segments + 1, dtype=torch.int32, device=device)
        # different tokens for different padding rows: they are added to in parallel
        self._filler = torch.arange(tokens - 1, tokens - 1 - rows, -1, device=device)

    @property
    def segments(self) -> Segments:
        """The bounds, with what of them is on the host."""
        return Segments(self.batch.lengths.tolist(), self.bucket.longest, self.bounds, self.bounds)

    def load(self, batch: MicroBatch) -> None:
        """Fills the buffers with a micro-batch that fits, without a device sync."""
        tokens, rows = batch.input_ids.shape[1], len(batch.rows)
        mine = self.batch
        for buffer, values in ((mine.input_ids, batch.input_ids), (mine.position_ids, batch.position_ids)):
            buffer[:, :tokens].copy_(values, non_blocking=True)
            buffer[:, tokens:].zero_()
        mine.rows[:rows].copy_(batch.rows, non_blocking=True)
        mine.rows[rows:].copy_(self._filler[: len(mine.rows) - rows])
        mine.targets[:rows].copy_(batch.targets, non_blocking=True)
        mine.targets[rows:].fill_(IGNORED)
        padding = _padding(self.bucket.tokens - tokens, self.bucket.longest)
        lengths = torch.cat((batch.lengths, torch.tensor(padding, dtype=torch.int32)))
        bounds = torch.full((len(self.bounds),), self.bucket.tokens, dtype=torch.int32)
        bounds[0] = 0
        torch.cumsum(lengths, 0, dtype=torch.int32, out=bounds[1 : len(lengths) + 1])
        on_gpu = self.bounds.device.type == "cuda"
        self.bounds.copy_(bounds.pin_memory() if on_gpu else bounds, non_blocking=on_gpu)
        self.batch = mine._replace(lengths=lengths)


def _padding(count: int, longest: int) -> list[int]:
    """Lengths of the examples that padding tokens make."""
    whole, rest = divmod(count, longest)
    return [longest] * whole + [rest] * (rest > 0)


def _up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple
