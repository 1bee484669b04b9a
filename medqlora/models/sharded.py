"""A 4-bit base sharded over processes: each keeps a shard of every layer's packed weights (`sharded_layer`).

Here is the order in which all processes gather the layers. Adapters, norms, biases and codes stay as they are.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.graph import register_multi_grad_hook
from torch.distributed.device_mesh import DeviceMesh

from medqlora.compat.torch import in_backward
from medqlora.models.layers import decoder_layers
from medqlora.models.quantization import quant_state
from medqlora.models.sharded_layer import ShardedLayer
from medqlora.models.weight_shares import Share, packed_weights
from medqlora.utils.distributed_errors import together

#: what a process announces to the others: no pass, a forward, or a forward and its backward
_NONE, _FORWARD, _BOTH = 0, 1, 2


class ShardedBase:
    """The layers of a sharded base, gathered by all processes that share it in the same order.

    FSDP2 would wait forever where one process runs another number of passes than the others: with more micro-batches,
    questions or new tokens. So each announces every pass over the layers to the others, on the host, and one without
    passes left takes part in theirs (`join`). At the end of a step or an evaluation, and before any other collective,
    all of them call `join`. In between, all passes are of one kind.

    A pass that an exception cut short (out of memory) is completed before the next.

    Args:
        layers: in the model's order.
        host: a process group on the host for small messages, of the processes that share the base; None for torch's
            default group.

    Attributes:
        kept: whether all layers stay gathered, see `keep`.
    """

    def __init__(self, layers: Sequence[ShardedLayer], host: dist.ProcessGroup | None) -> None:
        self.layers = layers
        self.kept = False
        self._host = host
        #: the layers of the current pass, the index of the next among them, and whether it is entered
        self._order: list[int] = []
        self._next = 0
        self._entered = False

    @property
    def share_bytes(self) -> int:
        """The bytes of this process's shares."""
        return sum(layer.share_bytes for layer in self.layers)

    @property
    def total_bytes(self) -> int:
        """The bytes of all processes' shares."""
        return sum(layer.total_bytes for layer in self.layers)

    @property
    def shards(self) -> int:
        """The number of processes that share the base."""
        return self.total_bytes // max(1, self.share_bytes)

    def begin(self, *, backward: bool) -> None:
        """Starts a pass: each layer is used once in order, and again in reverse order for a backward."""
        if self.kept:
            return
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
        """Gathers the layer, and starts to gather the next one of this pass; leaves the layer before."""
        if self.kept:
            return
        if self._entered:
            self.leave()
        if self._next >= len(self._order) or self._order[self._next] != number:
            raise RuntimeError(f"layer {number} is used out of order: the processes would never meet again")
        self.layers[number].gather()
        self.layers[number].wait()
        self._entered = True
        if self._next + 1 < len(self._order):
            self.layers[self._order[self._next + 1]].gather()

    def leave(self) -> None:
        """Frees the layer, unless it is also the next one."""
        if self.kept or not self._entered:
            return
        number = self._order[self._next]
        self._next += 1
        self._entered = False
        if self._order[self._next : self._next + 1] != [number]:
            self.layers[number].release()

    def join(self) -> None:
        """Takes part in the other processes' passes until no process has another; all of them call it."""
        if self.kept:
            return
        self._finish()
        while kind := self._announce(_NONE):
            self._open(kind)
            self._finish()

    def keep(self) -> None:
        """Gathers all layers, which stay until `give_back`: no process waits for another. All of them call it."""
        self.join()
        for layer in self.layers:
            layer.gather()
            layer.wait()
        self.kept = True

    def give_back(self) -> None:
        """Frees the layers that `keep` gathered; no process waits for another."""
        if self.kept:
            self.kept = False
            for layer in self.layers:
                layer.release()

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
        self.leave()
        while self._next < len(self._order):
            with self.use(self._order[self._next]):
                pass


def share_base(
    model: nn.Module,
    device: torch.device,
    mesh: DeviceMesh,
    host: dist.ProcessGroup | None,
    shares: dict[int, Share] | None = None,
) -> ShardedBase:
    """Shards a loaded model's layers over the processes of a mesh; all else goes to `device`.

    It goes layer by layer: `device` never holds more of the layers than this process's shares and one complete layer.
    The model's own forward, and autograd's backward, gather each layer before it runs.

    Args:
        model: a transformers causal language model in 4 bits, or a PEFT model around one; on the host, or with its
            weights cut.
        device: where it runs.
        mesh: as for `ShardedLayer`.
        host: as for `ShardedBase`.
        shares: as from `cut_while_loading`; it is empty after.
    """
    modules = decoder_layers(model)
    layers = [ShardedLayer(packed_weights(layer), device, mesh, host, shares) for layer in modules]
    inside = {id(weight) for layer in modules for weight in layer.parameters()}
    cut_outside = [
        weight
        for weight in packed_weights(model)
        if id(weight) not in inside and id(quant_state(weight)) in (shares or {})
    ]
    if cut_outside:  # a vision tower's, which no pass over the layers gathers
        outside = ShardedLayer(cut_outside, device, mesh, host, shares)
        outside.gather()
        outside.wait()
    nn.Module.to(model, device)  # transformers' own `to` refuses some quantized models
    sharded = ShardedBase(layers, host)
    gather_in_forward(modules, sharded)
    return sharded


def gather_in_forward(layers: Sequence[nn.Module], sharded: ShardedBase) -> None:
    """Registers hooks, so that the model's own forward and its backward gather each layer before it runs."""
    for number, layer in enumerate(layers):
        layer.register_forward_pre_hook(partial(_before, sharded, number))
        layer.register_forward_hook(partial(_after, sharded, number))


def _before(sharded: ShardedBase, number: int, *_: object) -> None:
    if in_backward():  # activation checkpointing recomputes a layer, which `enter_again` has gathered
        return
    if number == 0:
        sharded.begin(backward=torch.is_grad_enabled())
    sharded.enter(number)


def _after(sharded: ShardedBase, number: int, _: nn.Module, __: object, output: object) -> None:
    if in_backward():
        return
    sharded.leave()
    outputs = output if isinstance(output, (tuple, list)) else [output]
    tensors = [each for each in outputs if isinstance(each, Tensor) and each.requires_grad]

    def enter_again(_: Tensor) -> None:
        """The gradient of the layer's output has arrived: its backward begins, that of the layer after is done."""
        sharded.enter(number)

    if tensors:
        register_multi_grad_hook(tensors, enter_again, mode="any")
