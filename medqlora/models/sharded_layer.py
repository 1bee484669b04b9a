"""A decoder layer's packed weights, sharded over processes by torch's FSDP2.

`torch.distributed.fsdp.fully_shard` holds the shards and gathers a layer (Zhao et al., 2023,
https://arxiv.org/abs/2304.11277). It manages one parameter for each packed weight, outside of the model: packed
values with their scales, stored as float32 (`STORED_AS`). The weights in the model are views of the gathered
parameters, so bitsandbytes, PEFT, gradients and checkpoints are unaffected.
"""

from collections.abc import Sequence
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, UnshardHandle, fully_shard
from torch.distributed.tensor import DTensor

from medqlora.models.quantization import quant_state
from medqlora.models.weight_shares import Share, cut, place_in, tensors_of
from medqlora.utils.distributed_errors import together

#: the type under which FSDP2 holds packed bytes. torch 2.11 takes only types of floating point. On a GPU its copy into
#: the message (`torch._foreach_copy_`) converts 16-bit types to float32 and back, which gives all NaNs one pattern: as
#: bfloat16 4 of 10,000 packed bytes and 12 of 10,000 scales changed, and the weights by 5%. float32 it copies as it is.
STORED_AS = torch.float32


class ShardedLayer:
    """A decoder layer's packed weights, sharded by FSDP2.

    The weights' tensors become views of the gathered parameters. They stay valid objects while FSDP2 frees the
    memory behind them.

    Args:
        weights: packed weights, whole, or cut while they were loaded.
        device: where the layer runs.
        mesh: processes, its dimension "shard" those that share the weights; all of them build the layer together.
        host: a process group on the host of those that share the weights; None for torch's default group.
        shares: as from `cut_while_loading`; those of these weights are taken out, so that none is held twice.

    Raises:
        RuntimeError: a process has not gathered what the others hold, byte for byte; all processes raise.
    """

    def __init__(
        self,
        weights: Sequence[nn.Parameter],
        device: torch.device,
        mesh: DeviceMesh,
        host: dist.ProcessGroup | None = None,
        shares: dict[int, Share] | None = None,
    ) -> None:
        rank, count = place_in(mesh)
        own = _shares(weights, rank, count, {} if shares is None else shares)
        self.share_bytes = sum(share.part.nbytes for share in own)
        self.total_bytes = self.share_bytes * count
        self._owners = [tensors_of(weight) for weight in weights]
        self._pending: UnshardHandle | None = None
        self._whole = False
        self._module = _held(own, device, mesh, count)
        sums = _everyones_sums(own, count, host)
        self.gather()
        self.wait()
        buffers = [
            parameter.data.view(torch.uint8) for parameter in cast(nn.Module, self._module).parameters()
        ]
        _compare([buffer.view(count, -1) for buffer in buffers], own, rank, sums, host)
        for owners, share, buffer in zip(self._owners, own, buffers, strict=True):
            for (owner, name), (start, dtype, shape) in zip(owners, share.tensors, strict=True):
                end = start + shape.numel() * dtype.itemsize
                setattr(owner, name, buffer[start:end].view(dtype).view(shape))
        self.release()

    @property
    def whole(self) -> bool:
        """Whether the layer is gathered, or is being gathered; call `wait` before reading it."""
        return self._whole

    def gather(self) -> None:
        """Starts to gather the other processes' shares, unless it has; all processes call it together."""
        if not self._whole:
            with together():
                self._pending = self._module.unshard(async_op=True)
            self._whole = True

    def wait(self) -> None:
        """Waits until the layer can be read; on a GPU the device's stream waits, not the host."""
        if self._pending is not None:
            with together():
                self._pending.wait()
            self._pending = None

    def release(self) -> None:
        """Frees the gathered weights; on a GPU for kernels launched later."""
        self.wait()
        self._module.reshard()
        self._whole = False

    def discard(self) -> None:
        """Removes the weights from the model, which can then be moved but no longer run."""
        self.wait()
        for owner, name in (each for owners in self._owners for each in owners):
            setattr(owner, name, getattr(owner, name).new_empty(0))


def _shares(
    weights: Sequence[nn.Parameter], rank: int, count: int, cut_before: dict[int, Share]
) -> list[Share]:
    """This process's share of each weight; those that were cut before are taken out of `cut_before`."""
    states = [id(quant_state(weight)) for weight in weights]
    return [
        cut_before.pop(state) if state in cut_before else cut(weight, rank, count)
        for state, weight in zip(states, weights, strict=True)
    ]


def _held(own: Sequence[Share], device: torch.device, mesh: DeviceMesh, count: int) -> FSDPModule:
    """A module whose parameters FSDP2 shards: one for each weight, of which this process holds its share."""
    module = nn.Module()
    for number, share in enumerate(own):
        size = share.part.nbytes * count // STORED_AS.itemsize
        empty = torch.empty(size, dtype=STORED_AS, device="meta")
        module.register_parameter(f"weight{number}", nn.Parameter(empty, requires_grad=False))
    sharded = fully_shard(module, mesh=mesh, reshard_after_forward=True)
    module.to_empty(device=device)
    for parameter, share in zip(module.parameters(), own, strict=True):
        cast(DTensor, parameter).to_local().copy_(share.part.view(STORED_AS))
    return sharded


def _everyones_sums(own: Sequence[Share], count: int, host: dist.ProcessGroup | None) -> Tensor:
    """The sums of 32-bit words of each weight's parts, [count, weights], from the processes that hold them.

    On the host, before the first gather: there an ended process is noticed at once, and by NCCL after its timeout.
    """
    if not own:  # a layer without packed weights
        return torch.zeros(count, 0)
    mine = torch.cat([_sums(share.part[None]).cpu() for share in own])
    sums = [torch.empty_like(mine) for _ in range(count)]
    with together():
        dist.all_gather(sums, mine, group=host)
    return torch.stack(sums)


def _compare(
    gathered: Sequence[Tensor], own: Sequence[Share], rank: int, sums: Tensor, host: dist.ProcessGroup | None
) -> None:
    """Raises RuntimeError in all processes where one has gathered other bytes than those that the others hold.

    Args:
        gathered: [count, bytes] uint8 of each weight: the parts of all processes, in order.
        own: this process's shares, which are compared byte for byte.
        rank: its place among those that share the weights.
        sums: as from `_everyones_sums`.
        host: as for `ShardedLayer`.
    """
    equal = all(
        torch.equal(parts[rank], share.part.to(parts.device)) and torch.equal(_sums(parts).cpu(), expected)
        for parts, share, expected in zip(gathered, own, sums.unbind(1), strict=True)
    )
    unequal = torch.tensor(not equal, dtype=torch.int32)
    with together():
        dist.all_reduce(unequal, dist.ReduceOp.MAX, group=host)
    if unequal.item():
        raise RuntimeError(
            "--trainer.strategy fsdp: torch's FSDP2 changes bytes of a packed weight while it gathers it: use ddp, and "
            "report your versions of torch and CUDA"
        )


def _sums(parts: Tensor) -> Tensor:
    """The sum of each row's 32-bit words, [rows], of [rows, bytes] uint8."""
    return parts.contiguous().view(torch.int32).sum(dim=1, dtype=torch.int64)
