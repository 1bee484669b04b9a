"""CUDA graphs of passes: a pass of thousands of small kernels starts with one launch."""

from collections import OrderedDict
from collections.abc import Callable, Hashable

import torch
from torch import Tensor

from medqlora.utils.console import say

#: graphs that are kept, the last used ones
MOST = 32
#: workspaces of the stream that captures them: measured on an H200
WORKSPACE_BYTES = 64 * 2**20


class Graphs:
    """Captures each kind of pass at its first use, and replays it afterwards.

    A pass reads and writes the same buffers in each run, launches no work that depends on the host, and may run twice.
    Where a capture fails, every later pass runs without graphs, and one line says why. Without a GPU there are none.

    Args:
        device: where the passes run.
    """

    def __init__(self, device: torch.device) -> None:
        self._on = device.type == "cuda"
        self._device = device
        #: of all captures: each stream has workspaces of its own
        self._stream: torch.cuda.Stream | None = None
        self._captured: OrderedDict[Hashable, tuple[torch.cuda.CUDAGraph, Tensor]] = OrderedDict()

    def clear(self) -> None:
        """Forgets all graphs: the buffers that they use were replaced."""
        self._captured.clear()

    def run(self, key: Hashable, body: Callable[[], Tensor]) -> Tensor:
        """The result of `body`, valid until the next run of the same key.

        Args:
            key: equal for passes with the same operations on the same buffers.
            body: the pass.
        """
        if not self._on:
            return body()
        if key not in self._captured:
            try:
                captured = self._capture(body)
            except (RuntimeError, ValueError) as error:
                if isinstance(error, torch.OutOfMemoryError):
                    raise
                self._on = False
                self.clear()
                say(f"Generation: without CUDA graphs, a capture failed ({str(error).splitlines()[0]})")
                return body()
            self._captured[key] = captured
            if len(self._captured) > MOST:
                self._captured.popitem(last=False)
        self._captured.move_to_end(key)
        graph, result = self._captured[key]
        graph.replay()
        return result

    def _capture(self, body: Callable[[], Tensor]) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        """A graph of the pass and its result's buffer."""
        if self._stream is None:
            self._stream = torch.cuda.Stream(self._device)
        stream = self._stream
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):  # compiles kernels and allocates workspaces outside of the capture
            body()
        torch.cuda.current_stream(self._device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # all graphs share their memory: only one runs at a time, and its result is read before the next
        pool = next((other.pool() for other, _ in self._captured.values()), None)
        torch.cuda.synchronize(self._device)
        # `torch.cuda.graph` would collect garbage and empty the allocator's cache first: a second for each graph
        with torch.cuda.stream(stream):
            # other threads, such as a server's, may use the device meanwhile
            if pool is None:
                graph.capture_begin(capture_error_mode="thread_local")
            else:
                graph.capture_begin(pool, capture_error_mode="thread_local")
            try:
                result = body()
            finally:
                graph.capture_end()
        torch.cuda.current_stream(self._device).wait_stream(stream)
        return graph, result
