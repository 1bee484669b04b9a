"""Layer inputs in host memory between forward and backward: their copies run beside the layers."""

from contextlib import suppress

import torch
from torch import Tensor


class HostInputs:
    """The inputs of one pass's layers that activation checkpointing keeps in host memory.

    On a GPU a second stream copies: an input goes out during its layer's forward, and comes back during the backward
    of the attention above. The backward of an MLP, which needs the most memory, has no input but its layer's own.

    Args:
        stream: copies; None without a GPU.
        buffers: pinned host memory for each layer, [at least T, D]; None allocates it.
    """

    def __init__(self, stream: torch.cuda.Stream | None, buffers: list[Tensor] | None = None) -> None:
        self._stream = stream
        self._buffers = buffers
        self._hosts: dict[int, Tensor] = {}
        #: an input whose copy may still run, and the copy's end
        self._leaving: tuple[Tensor, torch.cuda.Event] | None = None
        #: layer, input on the device, and its copy's end
        self._ahead: tuple[int, Tensor, torch.cuda.Event] | None = None

    def __del__(self) -> None:
        # after an exception: memory that a copy still uses is freed now, and reused after the copy
        busy = self._leaving or self._ahead
        if busy is not None and self._stream is not None:
            with suppress(RuntimeError):
                torch.cuda.current_stream(self._stream.device).wait_stream(self._stream)

    def put(self, index: int, x: Tensor) -> Tensor:
        """Begins to copy the input x [T, D] of layer `index`; returns its place in host memory."""
        if self._buffers is not None:
            host = self._buffers[index][: len(x)]
        else:
            host = torch.empty(x.shape, dtype=x.dtype, device="cpu", pin_memory=self._stream is not None)
        self._hosts[index] = host
        if self._stream is None:
            return host.copy_(x)
        self.finish()
        self._stream.wait_stream(torch.cuda.current_stream(x.device))
        with torch.cuda.stream(self._stream):
            host.copy_(x, non_blocking=True)
        self._leaving = (x, self._stream.record_event())
        return host

    def finish(self) -> None:
        """Lets the present stream wait for the last copy to the host; its input may then be freed."""
        if self._leaving is not None:
            x, copied = self._leaving
            torch.cuda.current_stream(x.device).wait_event(copied)
            self._leaving = None

    def get(self, index: int, host: Tensor, device: torch.device) -> Tensor:
        """The input of layer `index` on the device, from its place in host memory."""
        if self._stream is None:
            return host
        ahead, self._ahead = self._ahead, None
        if ahead is None or ahead[0] != index:
            ahead = self._fetch(index, host, device)
        _, x, copied = ahead
        torch.cuda.current_stream(device).wait_event(copied)
        self._hosts.pop(index, None)
        return x

    def prepare(self, index: int, device: torch.device) -> None:
        """Begins to copy the input of layer `index`, if it is in host memory, back to the device."""
        host = self._hosts.get(index)
        if self._stream is not None and host is not None:
            self._ahead = self._fetch(index, host, device)

    def _fetch(self, index: int, host: Tensor, device: torch.device) -> tuple[int, Tensor, torch.cuda.Event]:
        assert self._stream is not None
        x = torch.empty(host.shape, dtype=host.dtype, device=device)
        self._stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(self._stream):
            x.copy_(host, non_blocking=True)
        return index, x, self._stream.record_event()
