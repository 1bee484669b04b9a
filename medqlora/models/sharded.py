"""One 4-bit base over several processes: each keeps a share of every layer's bytes; a layer is whole while it runs.

As in FSDP (Zhao et al., 2023, https://arxiv.org/abs/2304.11277) a layer's buffer is freed between its uses and
gathered before them, the next one while this one runs. But nothing is trained of what is shared out, and it is
bytes: bitsandbytes' scales keep their meaning, gradients and checkpoints know nothing of it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from medqlora.models.quantization import import_bitsandbytes
from medqlora.utils.distributed_errors import together

#: a tensor begins at a multiple of so many bytes in its layer's buffer, as torch's own allocations do
_ALIGNMENT = 256
#: torch 2.13 renamed it
_all_gather: Any = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
#: what a process tells the others before a pass: that it has none, one forward, or one forward and its backward
_NONE, _FORWARD, _BOTH = 0, 1, 2


class ShardedLayer:
    """A decoder layer's 4-bit weights as views of one buffer, of which this process keeps its share.

    Packed values and their scales lie in the buffer. The codes (16 and 256 entries), norms, biases and adapters
    stay as they are. The views stay valid objects while the buffer's memory is given back.

    Args:
        module: the layer, its weights in 4 bits, on any device.
        device: where it is used.
        rank, world_size: which share is this process's.

    Attributes:
        share: [total_bytes / world_size] uint8, on `device`.
    """

    def __init__(self, module: nn.Module, device: torch.device, rank: int, world_size: int) -> None:
        self._owners = _owners(module)
        starts, end = [], 0
        for owner, name in self._owners:
            starts.append(_up(end, _ALIGNMENT))
            end = starts[-1] + getattr(owner, name).nbytes
        size = _up(end, _ALIGNMENT * world_size) // world_size
        self._whole = torch.zeros(size * world_size, dtype=torch.uint8, device=device)
        for (owner, name), start in zip(self._owners, starts, strict=True):
            tensor = getattr(owner, name)
            view = self._whole[start : start + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
            setattr(owner, name, view.copy_(tensor))
        self.total_bytes = len(self._whole)
        self.share = self._whole[rank * size : (rank + 1) * size].clone()
        self._arriving: Any = None
        self.release()

    @property
    def whole(self) -> bool:
        """Whether its memory is there; `wait` before it is read."""
        return self._whole.untyped_storage().size() > 0

    def gather(self) -> None:
        """Begins to bring the others' shares here, if it isn't done already; all processes call it together."""
        if self.whole:
            return
        self._whole.untyped_storage().resize_(self.total_bytes)
        self._arriving = _all_gather(self._whole, self.share, async_op=True)

    def wait(self) -> None:
        """Returns when it may be read; on a GPU it is the device's stream that waits."""
        if self._arriving is not None:
            with together():
                self._arriving.wait()
            self._arriving = None

    def release(self) -> None:
        """Gives the memory back; on a GPU to what is launched after this."""
        self.wait()
        self._whole.untyped_storage().resize_(0)

    def discard(self) -> None:
        """Takes the weights out of the model, which can then be moved, and no longer be run."""
        self.wait()
        for owner, name in self._owners:
            setattr(owner, name, getattr(owner, name).new_empty(0))


class ShardedBase:
    """The layers of a base that is spread over processes, gathered in step by all of them.

    A layer is gathered by all processes at once, and one of them may have more micro-batches, questions or new
    tokens than another. So each tells the others, on the host, before each of its passes over all layers; and one
    that has none left takes part in theirs (`meet`). At the end of a step, of an evaluation and wherever else the
    processes exchange anything, all of them `meet` first. In between, they do passes of one kind.

    What an exception leaves unfinished of a pass (out of memory) is caught up with before the next.

    Args:
        layers: in the model's order.
        host: a process group of the host, for small messages.
    """

    def __init__(self, layers: Sequence[ShardedLayer], host: Any) -> None:
        self.layers = layers
        self._host = host
        self._order: list[int] = []
        self._place = 0

    @property
    def share_bytes(self) -> int:
        """What this process keeps of the layers."""
        return sum(layer.share.nbytes for layer in self.layers)

    @property
    def total_bytes(self) -> int:
        return sum(layer.total_bytes for layer in self.layers)

    def begin(self, *, backward: bool) -> None:
        """A pass of this process: each layer is used once in order, and again in reverse for a backward."""
        self._finish()
        kind = _BOTH if backward else _FORWARD
        self._tell(kind)
        self._open(kind)

    @contextmanager
    def use(self, number: int) -> Iterator[None]:
        """While it is entered, the layer is whole."""
        self.enter(number)
        try:
            yield
        finally:
            self.leave()

    def enter(self, number: int) -> None:
        """Makes the layer whole, and begins to gather the one that comes after it in this pass."""
        if self._place >= len(self._order) or self._order[self._place] != number:
            raise RuntimeError(f"layer {number} is used out of its turn: the processes would wait for ever")
        self.layers[number].gather()
        self.layers[number].wait()
        if self._place + 1 < len(self._order):
            self.layers[self._order[self._place + 1]].gather()

    def leave(self) -> None:
        """Gives the layer back, unless it comes next again."""
        number = self._order[self._place]
        self._place += 1
        if self._order[self._place : self._place + 1] != [number]:
            self.layers[number].release()

    def join(self) -> None:
        """Takes part in the other processes' passes until none of them has another; all of them call it."""
        self._finish()
        while kind := self._tell(_NONE):
            self._open(kind)
            self._finish()

    def discard(self) -> None:
        for layer in self.layers:
            layer.discard()

    def _tell(self, kind: int) -> int:
        """The kind of pass that some process begins now, `_NONE` if none does."""
        told = torch.tensor([kind == _FORWARD, kind == _BOTH], dtype=torch.int32)
        with together():
            dist.all_reduce(told, dist.ReduceOp.MAX, group=self._host)
        forward, both = told.tolist()
        if forward and both:
            raise RuntimeError("one process trains while another evaluates: they would wait for ever")
        return _BOTH if both else _FORWARD if forward else _NONE

    def _open(self, kind: int) -> None:
        there = list(range(len(self.layers)))
        self._order = there + there[::-1] if kind == _BOTH else there
        self._place = 0

    def _finish(self) -> None:
        """Gathers what is left of a pass, as the others do."""
        while self._place < len(self._order):
            with self.use(self._order[self._place]):
                pass


def share_base(model: Any, device: torch.device, host: Any) -> ShardedBase:
    """Spreads a loaded model's layers over the processes of torch's default group; the rest goes to `device`.

    Layer by layer: `device` never holds more of the layers than this process's shares and one of them whole. The
    model's own forward gathers them as it comes to them, without gradients alone; `begin` is called for it.

    Args:
        model: a transformers causal language model in 4 bits, or a PEFT model around one, on the host.
        device: where it is run.
        host: as for `SharedBase`.
    """
    base: Any = model.get_base_model() if hasattr(model, "get_base_model") else model
    modules = getattr(base, base.base_model_prefix).layers
    rank, world_size = dist.get_rank(), dist.get_world_size()
    shared = ShardedBase([ShardedLayer(one, device, rank, world_size) for one in modules], host)
    nn.Module.to(model, device)  # transformers' own `to` refuses some quantized models
    for number, module in enumerate(modules):
        _gather_in_forward(module, shared, number)
    return shared


def _gather_in_forward(module: nn.Module, shared: ShardedBase, number: int) -> None:
    def before(module: nn.Module, inputs: Any) -> None:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "the model's own forward would keep weights for a backward that are given back"
            )
        if number == 0:
            shared.begin(backward=False)
        shared.enter(number)

    def after(module: nn.Module, inputs: Any, output: Any) -> None:
        shared.leave()

    module.register_forward_pre_hook(before)
    module.register_forward_hook(after)


def _owners(module: nn.Module) -> list[tuple[Any, str]]:
    """Who holds the layer's bulk, and under which name: packed values, their scales, and the scales of those."""
    linear4bit = import_bitsandbytes().nn.Linear4bit
    owners: list[tuple[Any, str]] = []
    for each in module.modules():
        if isinstance(each, linear4bit):
            weight: Any = each.weight
            owners += [(weight, "data"), (weight.quant_state, "absmax")]
            if weight.quant_state.nested:
                owners.append((weight.quant_state.state2, "absmax"))
    return owners


def _up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple
