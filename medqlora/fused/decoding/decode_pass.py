"""One pass of decoding: the last token of each row in, the logits of its next one out."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from medqlora.fused.decoder import FusedDecoder
from medqlora.fused.decoding.cache import KeyValueCache
from medqlora.fused.decoding.graphs import Graphs
from medqlora.fused.kernels.attention import Segments, attend_cached
from medqlora.fused.kernels.available import has_triton
from medqlora.fused.layer import Layer
from medqlora.fused.step import Selection, Step
from medqlora.models.host_weights import HostEmbedding, HostHead

if TYPE_CHECKING:
    from medqlora.fused.decoding.kernel_pass import KernelPass  # needs Triton

#: keys that a pass reads are a multiple of it on a GPU, so that few graphs are captured
LENGTH_MULTIPLE = 256
#: the same of the kernels, which read no key behind a row's last
KERNEL_LENGTH_MULTIPLE = 2048
#: rows up to which the kernels take NF4 where weights are kept in 16 bits too, since it is faster
NF4_ROWS = 2
#: most rows that the kernels multiply with NF4; for more, each group is dequantized in each pass
MOST_NF4_ROWS = 64
#: so many times as many rows are written faster by dequantization than the most without
_WORTH = 3


class DecodePass:
    """Passes over the first slots of a cache, from static buffers, so that they can run as CUDA graphs.

    A pass reads and writes nothing on the host; the embedding or the head in host memory run outside of the graph.
    Weights that are not kept dequantized are dequantized in each pass, as in training.

    Args:
        decoder: the model; its adapters are prepared by the caller, see `FusedDecoder.refresh` and `AdapterBank`.
        cache: of the rows.
        graphs: runs passes as CUDA graphs, on a GPU.
        kernels: runs the layers; None for operations of torch.

    Attributes:
        state: [3, slots] int64: each row's last token, its position, and its adapter (see `AdapterBank`) for a pass
            over rows with different ones. The caller writes it.
    """

    def __init__(
        self, decoder: FusedDecoder, cache: KeyValueCache, graphs: Graphs, kernels: "KernelPass | None" = None
    ) -> None:
        self._decoder, self._cache, self._graphs, self._kernels = decoder, cache, graphs, kernels
        self._gpu = decoder.norm[0].device.type == "cuda"
        self._hosted = isinstance(decoder.body.embed_tokens, HostEmbedding)
        self.resize(0)

    def resize(self, slots: int) -> None:
        """New buffers, for a cache of new size."""
        device = self._decoder.norm[0].device
        self.state = torch.zeros(3, slots, dtype=torch.int64, device=device)
        width = self._decoder.norm[0].shape[0]
        self._embedded = torch.zeros(slots, width, dtype=self._decoder.dtype, device=device)
        self._graphs.clear()

    def rows(self, count: int) -> int:
        """Rows of a pass for `count` of them: on a GPU the next bucket, for which one graph is captured."""
        return min(bucket(count), self._cache.slots) if self._gpu else count

    def fastest(self, count: int) -> int:
        """The number of rows up to `count` with which most tokens a second are written."""
        dequantizes = any(group.kept is None for group in self._decoder.groups)
        return fastest_rows(count) if self._kernels is not None and dequantizes else count

    @torch.no_grad()
    def run(self, rows: int, longest: int, kind: tuple[object, ...]) -> Tensor:
        """[rows, V] logits, valid until the next call; writes the tokens' keys and values to the cache.

        Args:
            rows: the first slots; from `rows`.
            longest: the largest position among them, plus one.
            kind: whatever else the pass depends on, such as the adapters in use: passes of one kind are equal.
        """
        if self._gpu:
            multiple = LENGTH_MULTIPLE if self._kernels is None else KERNEL_LENGTH_MULTIPLE
            longest = -(-longest // multiple) * multiple
        longest = min(longest, self._cache.capacity)
        with torch.autocast(self.state.device.type, enabled=False):
            if self._hosted:
                ids = self.state[0, :rows]
                self._embedded[:rows].copy_(self._decoder.embed(ids, ids.cpu()))
            hidden = self._graphs.run(
                (rows, longest, self._cache.version, *kind), lambda: self._body(rows, longest)
            )
            # a head in host memory is streamed: its copies can't be part of a graph
            return self._decoder.head(hidden) if self._head_apart else hidden

    @property
    def _head_apart(self) -> bool:
        return isinstance(self._decoder.head, HostHead)

    def _body(self, rows: int, longest: int) -> Tensor:
        decoder, positions = self._decoder, self.state[1, :rows]
        x = self._embedded[:rows] if self._hosted else decoder.embed(self.state[0, :rows], None)
        if self._kernels is not None:
            hidden = self._kernels.run(x.clone() if self._hosted else x, self.state[:, :rows], longest)
            return hidden if self._head_apart else decoder.head(hidden)
        step = _step(decoder, positions)
        places = self._cache.newest(positions)
        masks: dict[int | None, Tensor] = {}
        for index, layer in enumerate(decoder.layers):
            window = layer.first.window
            if window not in masks:
                masks[window] = _mask(positions, longest, window)
            with layer.gathered():
                x = self._layer(layer, index, x, step, places, masks[window])
        hidden = decoder.last_norm(x)
        return hidden if self._head_apart else decoder.head(hidden)

    def _layer(self, layer: Layer, index: int, x: Tensor, step: Step, places: Tensor, mask: Tensor) -> Tensor:
        """The layer's output [rows, D] from its input."""
        rows, longest = mask.shape[0], mask.shape[-1]
        projected = layer.first.project(x, step)
        self._cache.append(index, projected.k, projected.v, places)
        attended = attend_cached(projected.q, *self._cache.read(index, rows, longest), mask)
        return layer.second.forward(attended, x, None, step.functions)[0]


def kernels_for(decoder: FusedDecoder, cache: KeyValueCache) -> "KernelPass | None":
    """The kernels for a model; None where they can't run it, or Triton isn't installed."""
    if not kernels_fit(decoder):
        return None
    from medqlora.fused.decoding.kernel_pass import KernelPass

    return KernelPass(decoder, cache)


def kernels_fit(decoder: FusedDecoder) -> bool:
    """Whether the kernels run a model's passes: on a GPU in half precision, where Triton is installed."""
    if decoder.norm[0].device.type != "cuda" or decoder.dtype == torch.float32 or not has_triton():
        return False
    from medqlora.fused.decoding.kernel_pass import unfit

    return unfit(decoder) is None


def fastest_rows(count: int) -> int:
    """`DecodePass.fastest` of the kernels with NF4."""
    return MOST_NF4_ROWS if MOST_NF4_ROWS < count < _WORTH * MOST_NF4_ROWS else count


def bucket(count: int) -> int:
    """The next power of 2 up to 16, then the next multiple of 16."""
    return 1 << max(0, count - 1).bit_length() if count <= 16 else -(-count // 16) * 16


def _step(decoder: FusedDecoder, positions: Tensor) -> Step:
    """A pass over one token a row: every token is a query."""
    none = Segments([], 0, positions[:0], positions[:0])
    return decoder.step(positions, none, Selection(positions, None, positions, none))._replace(seed=None)


def _mask(positions: Tensor, longest: int, window: int | None) -> Tensor:
    """[rows, 1, 1, longest] bool: the tokens that each row's attention sees."""
    every = torch.arange(longest, device=positions.device)
    seen = every <= positions[:, None]
    if window is not None:
        seen &= every > positions[:, None] - window
    return seen[:, None, None]
