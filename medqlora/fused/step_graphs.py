"""Training passes as CUDA graphs: forward and backward of a micro-batch start with one launch each."""

import gc
import time
import weakref
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from medqlora.data.batching.packing import MicroBatch
from medqlora.fused.buckets import Bucket, PaddedInputs, find_bucket, padded_tokens
from medqlora.fused.decoder import FusedDecoder
from medqlora.fused.kernels.attention import flash_runs
from medqlora.fused.kernels.available import has_triton
from medqlora.fused.seeds import DeviceSeed
from medqlora.fused.step import select_any
from medqlora.models.host_weights import HostEmbedding, HostHead
from medqlora.utils.console import say

#: graphs that are kept, the last used ones
MOST = 64


def why_no_graphs(decoder: FusedDecoder) -> str | None:
    """The reason why a decoder's training passes can't be CUDA graphs, in a few words; None if they can."""
    device = decoder.norm[0].device
    if device.type != "cuda":
        return "there is no GPU"
    if decoder.sharded:
        return "processes share the base model's layers"
    if isinstance(decoder.head, HostHead):
        return "the head is in host memory"
    if not flash_runs(device, decoder.dtype, decoder.layers[0].first.heads.width):
        return "its attention needs the examples' lengths on the host"
    if not has_triton():
        return "Triton is not installed"
    return None


class Replays(Protocol):
    """Captured work, as `torch.cuda.CUDAGraph`."""

    def replay(self) -> None: ...


class Captured(NamedTuple):
    """The graphs of a bucket, and the tensors that they read and write."""

    inputs: PaddedInputs
    forward: Replays
    backward: Replays
    loss: Tensor


class StepGraphs:
    """Runs forward and backward of a decoder's training passes from CUDA graphs, one pair for each `Bucket`.

    The first pass runs without: it compiles kernels. A bucket is captured at its first use after that. All graphs
    share their memory, since the backward of a pass ends before the next forward. Where a capture fails, all later
    passes run without graphs and padding, and one line says why.

    Args:
        decoder: its `graphs` becomes this object. Its passes accumulate, and their gradient tensors stay in place.
        tokens: of the largest micro-batch that is expected.
        capture: False to run padded passes without graphs, with the same results.

    Attributes:
        on: whether the next pass runs here.
        least: tokens that the next passes are padded to at least; 0 for none.
        captures, capture_s: the buckets that were captured, and the seconds that it took.

    Raises:
        ValueError: the passes can't be captured; the message has the reason from `why_no_graphs`.
    """

    def __init__(self, decoder: FusedDecoder, tokens: int = 0, *, capture: bool = True) -> None:
        reason = why_no_graphs(decoder)
        if capture and reason is not None:
            raise ValueError(f"training passes can't be CUDA graphs: {reason}")
        # a cycle would keep the decoder's weights on the GPU until a garbage collection
        self._owner = weakref.ref(decoder)
        self._device = decoder.norm[0].device
        self._captures = capture
        self._tokens = tokens
        self.on = True
        self.least = 0
        self._warm = False
        self._captured: OrderedDict[tuple[Bucket, bool], Captured] = OrderedDict()
        #: what else the captured work depends on
        self._key: tuple[object, ...] = ()
        self._seed = torch.zeros((), dtype=torch.int64, device=self._device)
        self._gradient = torch.ones((), device=self._device)
        self._stream: torch.cuda.Stream | None = None
        #: its memory is that of all graphs
        self._newest: torch.cuda.CUDAGraph | None = None
        #: in host memory, for the inputs of offloaded layers; of all sizes, since graphs keep their addresses
        self._pinned: list[list[Tensor]] = []
        #: passes so far: a backward belongs to the last one
        self._passes = 0
        self.captures, self.capture_s = 0, 0.0
        decoder.graphs = self

    def loss_sum(self, batch: MicroBatch) -> Tensor | None:
        """The loss of a packed micro-batch, with an autograd graph; None where graphs turned out to be impossible.

        Call the backward before the next pass.

        Raises:
            torch.OutOfMemoryError: the pass needs more memory than there is.
        """
        seed = self._decoder.draw_seed()
        if seed is not None:
            self._seed.fill_(seed)
        bucket = find_bucket(batch, self._decoder.window, self._tokens, self.least)
        if not self._captures or not self._warm:
            self._warm = True
            inputs = self._inputs(bucket)
            self._load(inputs, batch)
            # a copy: the seed of the next pass may come before this one's backward
            return self._run(inputs, None if seed is None else DeviceSeed(self._seed.clone()))
        captured = self._find(bucket, seeded=seed is not None)
        if captured is None:
            return None
        self._load(captured.inputs, batch)
        self._passes += 1
        loss: Tensor = _Replayed.apply(self._gradient.detach().requires_grad_(), self, captured, self._passes)
        return loss

    @property
    def _decoder(self) -> FusedDecoder:
        decoder = self._owner()
        assert decoder is not None  # it calls this object
        return decoder

    def _inputs(self, bucket: Bucket) -> PaddedInputs:
        decoder, embedded = self._decoder, None
        if isinstance(decoder.body.embed_tokens, HostEmbedding):
            width = decoder.norm[0].shape[0]
            embedded = torch.zeros(bucket.tokens, width, dtype=decoder.dtype, device=self._device)
        return PaddedInputs(bucket, self._device, embedded)

    def _load(self, inputs: PaddedInputs, batch: MicroBatch) -> None:
        inputs.load(batch)
        if inputs.embedded is not None:  # gathered on the host, which no graph can do
            host_ids = None if batch.host_ids is None else batch.host_ids[0]
            rows = self._decoder.embed(batch.input_ids[0], host_ids)
            inputs.embedded[: len(rows)].copy_(rows)

    def _run(
        self, inputs: PaddedInputs, seed: DeviceSeed | None, pinned: list[Tensor] | None = None
    ) -> Tensor:
        """The forward of a pass; every query of the last layer's attention runs."""
        decoder, batch = self._decoder, inputs.batch
        segments = inputs.segments
        selection = select_any(batch.rows, segments)
        step = decoder.seeded_step(batch.position_ids[0], segments, selection, seed, pinned)
        return decoder.pass_loss(batch, step, inputs.embedded)

    def _find(self, bucket: Bucket, *, seeded: bool) -> Captured | None:
        """The graphs of a bucket, captured if they are new; None where the capture fails."""
        key = self._depends()
        if key != self._key:
            self.clear()
            self._key = key
        captured = self._captured.get((bucket, seeded))
        if captured is None:
            captured = self._try(bucket, seeded)
            if captured is None:
                return None
            self._captured[bucket, seeded] = captured
            if len(self._captured) > MOST:
                self._captured.popitem(last=False)
        self._captured.move_to_end((bucket, seeded))
        return captured

    def _depends(self) -> tuple[object, ...]:
        """What the captured work depends on, beside the bucket: the adapters, and where their tensors lie."""
        parameters = self._decoder.parameters
        ends = (parameters[0], parameters[-1]) if parameters else ()
        places = [(each.data_ptr(), None if each.grad is None else each.grad.data_ptr()) for each in ends]
        return self._decoder.adapters_on, *places

    def clear(self) -> None:
        """Forgets all graphs, and frees their memory."""
        if self._captured and self._captures and self._device.type == "cuda":
            torch.cuda.synchronize(self._device)  # the last one may still run
        self._captured.clear()
        self._newest = None

    def summary(self) -> str | None:
        """How many graphs there were, in one line; None where there was none."""
        if not self.captures:
            return None
        return f"Training steps: CUDA graphs for {self.captures} sizes of micro-batches took {self.capture_s:.1f} s"

    def backward(self, captured: Captured, number: int, gradient: Tensor) -> None:
        """Replays the backward of pass `number`. Raises RuntimeError if another pass has begun since."""
        if number != self._passes:
            raise RuntimeError("a captured pass was overwritten by a later one before its backward")
        self._gradient.copy_(gradient)
        captured.backward.replay()

    def _try(self, bucket: Bucket, seeded: bool) -> Captured | None:
        """The graphs of a bucket; None where the capture fails."""
        torch.cuda.empty_cache()  # the graphs' memory is their own
        started = time.perf_counter()
        try:
            captured = self._capture(bucket, seeded)
        except torch.OutOfMemoryError:
            self.clear()
            raise
        except (RuntimeError, ValueError) as error:
            self.clear()
            self.on = False
            say(f"Training steps: without CUDA graphs, a capture failed ({str(error).splitlines()[0]})")
            return None
        taken_s = time.perf_counter() - started
        if not self.captures:
            say(
                f"Training steps: CUDA graphs; the one for {bucket.tokens} tokens took {taken_s:.1f} s, those of other "
                "sizes follow at their first use"
            )
        self.captures, self.capture_s = self.captures + 1, self.capture_s + taken_s
        return captured

    def _capture(self, bucket: Bucket, seeded: bool) -> Captured:
        if self._stream is None:
            self._stream = torch.cuda.Stream(self._device)
        inputs, pinned = self._inputs(bucket), self._reserve(bucket.tokens)
        self._decoder.refresh(self._decoder.adapters_on)  # finds its tensors, which no capture can do
        forward, backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream), torch.autocast("cuda", enabled=False), _no_collection():
            with _recording(forward, like=self._newest):
                loss = self._run(inputs, DeviceSeed(self._seed) if seeded else None, pinned)
            # on this thread: the capture belongs to it
            with torch.autograd.set_multithreading_enabled(False), _recording(backward, like=forward):
                loss.backward(self._gradient)
        self._newest = forward
        return Captured(inputs, forward, backward, loss.detach())

    def _reserve(self, tokens: int) -> list[Tensor] | None:
        """Pinned memory for the layers' inputs; None where they stay on the device."""
        count = self._decoder.offloaded
        if not count:
            return None
        if not self._pinned or len(self._pinned[-1][0]) < tokens:
            size = (max(tokens, padded_tokens(max(1, self._tokens))), self._decoder.norm[0].shape[0])
            self._pinned.append(
                [torch.empty(size, dtype=self._decoder.dtype, pin_memory=True) for _ in range(count)]
            )
        return self._pinned[-1]


class _Context(Protocol):
    """The autograd context of `_Replayed`."""

    owner: StepGraphs
    captured: Captured
    number: int


class _Replayed(torch.autograd.Function):
    """A captured pass in the graph: `apply(anchor, graphs, captured, number)`."""

    @staticmethod
    def forward(ctx: _Context, anchor: Tensor, owner: StepGraphs, captured: Captured, number: int) -> Tensor:
        ctx.owner, ctx.captured, ctx.number = owner, captured, number
        captured.forward.replay()
        return captured.loss.clone()

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator,unused-ignore]
    def backward(ctx: _Context, gradient: Tensor) -> tuple[None, None, None, None]:
        ctx.owner.backward(ctx.captured, ctx.number, gradient)
        return None, None, None, None


@contextmanager
def _no_collection() -> Iterator[None]:
    """Without garbage collection: a freed CUDA object could end a capture."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def _recording(graph: torch.cuda.CUDAGraph, like: torch.cuda.CUDAGraph | None) -> Iterator[None]:
    """Captures what is launched into `graph`, in the memory of another one."""
    # other threads, such as those of a process group, may use the device meanwhile
    graph.capture_begin(pool=None if like is None else like.pool(), capture_error_mode="thread_local")
    try:
        yield
    except BaseException:
        with suppress(RuntimeError):  # the capture is invalid: the first error says why
            graph.capture_end()
        raise
    graph.capture_end()
