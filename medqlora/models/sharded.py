"""A 4-bit base sharded over processes: each keeps a shard of every layer's bytes; a layer is complete while it runs.

As in FSDP (Zhao et al., 2023, https://arxiv.org/abs/2304.11277) a layer's buffer is gathered before its use and freed
after it; the next layer is gathered while this one runs. But sharded weights are frozen bytes: bitsandbytes' scales
keep their meaning, and gradients and checkpoints are unaffected.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import nn

from medqlora.models.int4 import Int4Linear
from medqlora.models.layers import base_model
from medqlora.models.quantization import import_bitsandbytes, quant_state
from medqlora.utils.distributed_errors import together

#: alignment in bytes of a tensor in its layer's buffer, as in torch's own allocations
_ALIGNMENT = 256
#: torch 2.13 renamed it
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
#: what a process announces to the others: no pass, a forward, or a forward and its backward
_NONE, _FORWARD, _BOTH = 0, 1, 2


class _Sharded(NamedTuple):
    """A tensor of the layer that goes into the shared buffer: an attribute of a weight or of its quantization state."""

    owner: object
    attribute: str

    @property
    def tensor(self) -> torch.Tensor:
        return getattr(self.owner, self.attribute)

    def replace(self, tensor: torch.Tensor) -> None:
        setattr(self.owner, self.attribute, tensor)


class ShardedLayer:
    """A decoder layer's 4-bit weights as views of one buffer; this process keeps its shard of the buffer.

    The buffer holds packed values and their scales. The codes (16 and 256 entries), norms, biases and adapters stay as
    they are. The views stay valid objects while the buffer's memory is freed.

    Args:
        module: the layer, its weights in 4 bits, on any device.
        device: where it runs.
        rank, world_size: which shard this process keeps.

    Attributes:
        share: [total_bytes / world_size] uint8, on `device`.
    """

    def __init__(self, module: nn.Module, device: torch.device, rank: int, world_size: int) -> None:
        self._sharded = _sharded_tensors(module)
        starts, end = [], 0
        for entry in self._sharded:
            starts.append(_up(end, _ALIGNMENT))
            end = starts[-1] + entry.tensor.nbytes
        size = _up(end, _ALIGNMENT * world_size) // world_size
        self._buffer = torch.zeros(size * world_size, dtype=torch.uint8, device=device)
        for entry, start in zip(self._sharded, starts, strict=True):
            tensor = entry.tensor
            view = self._buffer[start : start + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
            entry.replace(view.copy_(tensor))
        self.total_bytes = len(self._buffer)
        self.share = self._buffer[rank * size : (rank + 1) * size].clone()
        self._pending: dist.Work | None = None
        self.release()

    @property
    def whole(self) -> bool:
        """Whether the buffer's memory is allocated; call `wait` before reading it."""
        return self._buffer.untyped_storage().size() > 0

    def gather(self) -> None:
        """Starts to gather the other processes' shards, unless it has; all processes call it together."""
        if self.whole:
            return
        self._buffer.untyped_storage().resize_(self.total_bytes)
        self._pending = _all_gather(self._buffer, self.share, async_op=True)

    def wait(self) -> None:
        """Waits until the buffer can be read; on a GPU the device's stream waits, not the host."""
        if self._pending is not None:
            with together():
                self._pending.wait()
            self._pending = None

    def release(self) -> None:
        """Frees the buffer's memory; on a GPU for kernels launched later."""
        self.wait()
        self._buffer.untyped_storage().resize_(0)

    def discard(self) -> None:
        """Removes the weights from the model, which can then be moved but no longer run."""
        self.wait()
        for entry in self._sharded:
            entry.replace(entry.tensor.new_empty(0))


class ShardedBase:
    """The layers of a sharded base, gathered by all processes in the same order.

    All processes gather a layer together, but one may have more micro-batches, questions or new tokens than another.
    So each announces every pass over the layers to the others, on the host, and one without passes left takes part in
    theirs (`join`). At the end of a step or an evaluation, and before any other collective, all of them call `join`.
    In between, all passes are of one kind.

    A pass that an exception cut short (out of memory) is completed before the next.

    Args:
        layers: in the model's order.
        host: a process group on the host for small messages; None for torch's default group.
    """

    def __init__(self, layers: Sequence[ShardedLayer], host: dist.ProcessGroup | None) -> None:
        self.layers = layers
        self._host = host
        #: the layers of the current pass, and the index of the next among them
        self._order: list[int] = []
        self._next = 0

    @property
    def share_bytes(self) -> int:
        """The bytes of this process's shards."""
        return sum(layer.share.nbytes for layer in self.layers)

    @property
    def total_bytes(self) -> int:
        """The bytes of all processes' shards."""
        return sum(layer.total_bytes for layer in self.layers)

    def begin(self, *, backward: bool) -> None:
        """Starts a pass: each layer is used once in order, and again in reverse order for a backward."""
        self._finish()
        kind = _BOTH if backward else _FORWARD
        self._announce(kind)
        self._open(kind)

    @contextmanager
    def use(self, number: int) -> Iterator[None]:
        """While entered, the layer's weights can be read."""
        self.enter(number)
        try:
            yield
        finally:
            self.leave()

    def enter(self, number: int) -> None:
        """Gathers the layer, and starts to gather the next one of this pass."""
        if self._next >= len(self._order) or self._order[self._next] != number:
            raise RuntimeError(f"layer {number} is used out of order: the processes would never meet again")
        self.layers[number].gather()
        self.layers[number].wait()
        if self._next + 1 < len(self._order):
            self.layers[self._order[self._next + 1]].gather()

    def leave(self) -> None:
        """Frees the layer, unless it is also the next one."""
        number = self._order[self._next]
        self._next += 1
        if self._order[self._next : self._next + 1] != [number]:
            self.layers[number].release()

    def join(self) -> None:
        """Takes part in the other processes' passes until no process has another; all of them call it."""
        self._finish()
        while kind := self._announce(_NONE):
            self._open(kind)
            self._finish()

    def discard(self) -> None:
        """Removes all layers' weights from the model."""
        for layer in self.layers:
            layer.discard()

    def _announce(self, kind: int) -> int:
        """Announces this process's next pass. Returns the kind that any process starts now, `_NONE` for none."""
        kinds = torch.tensor([kind == _FORWARD, kind == _BOTH], dtype=torch.int32)
        with together():
            dist.all_reduce(kinds, dist.ReduceOp.MAX, group=self._host)
        forward, both = kinds.tolist()
        if forward and both:
            raise RuntimeError("one process trains while another evaluates: they would never meet again")
        return _BOTH if both else _FORWARD if forward else _NONE

    def _open(self, kind: int) -> None:
        forward = list(range(len(self.layers)))
        self._order = forward + forward[::-1] if kind == _BOTH else forward
        self._next = 0

    def _finish(self) -> None:
        """Completes a pass: the other processes gather its remaining layers too."""
        while self._next < len(self._order):
            with self.use(self._order[self._next]):
                pass


def share_base(model: nn.Module, device: torch.device, host: dist.ProcessGroup | None) -> ShardedBase:
    """Shards a loaded model's layers over the processes of torch's default group; all else goes to `device`.

    It goes layer by layer: `device` never holds more of the layers than this process's shards and one complete layer.
    The model's own forward gathers each layer before it runs, and calls `begin` by itself; it works without gradients
    alone.

    Args:
        model: a transformers causal language model in 4 bits, or a PEFT model around one, on the host.
        device: where it runs.
        host: as for `ShardedBase`.
    """
    base = base_model(model)
    layers = getattr(base, base.base_model_prefix).layers
    rank, world_size = dist.get_rank(), dist.get_world_size()
    sharded = ShardedBase([ShardedLayer(layer, device, rank, world_size) for layer in layers], host)
    nn.Module.to(model, device)  # transformers' own `to` refuses some quantized models
    for number, layer in enumerate(layers):
        _gather_in_forward(layer, sharded, number)
    return sharded


def _gather_in_forward(layer: nn.Module, sharded: ShardedBase, number: int) -> None:
    def before(*_: object) -> None:
        if torch.is_grad_enabled():
            raise RuntimeError("the model's own forward would keep weights for a backward that are freed")
        if number == 0:
            sharded.begin(backward=False)
        sharded.enter(number)

    def after(*_: object) -> None:
        sharded.leave()

    layer.register_forward_pre_hook(before)
    layer.register_forward_hook(after)


def _sharded_tensors(module: nn.Module) -> list[_Sharded]:
    """The tensors with nearly all of the layer's bytes: packed values, their scales, and the scales of those."""
    linear4bit = import_bitsandbytes().nn.Linear4bit
    tensors: list[_Sharded] = []
    for layer in module.modules():
        if isinstance(layer, Int4Linear):
            packed, state4 = layer.weight, layer.state
            tensors += [_Sharded(packed, "data"), _Sharded(state4, "scales"), _Sharded(state4, "zeros")]
        elif isinstance(layer, linear4bit):
            state = quant_state(layer.weight)
            tensors += [_Sharded(layer.weight, "data"), _Sharded(state, "absmax")]
            if state is not None and state.nested:
                tensors.append(_Sharded(state.state2, "absmax"))
    return tensors


def _up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple
