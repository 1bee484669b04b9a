"""Ways to gather a sharded layer, to see what each costs; `sharded_layers.py` measures them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from medqlora.models import sharded
from medqlora.models.weight_shares import SHARD

#: name → (a stream of their own for FSDP2's copies, its priority, blocks of an NCCL kernel, peers' memory is read)
VARIANTS: dict[str, tuple[bool, int, int | None, bool]] = {
    "one": (False, 0, None, False),
    "own": (True, 0, None, False),
    "own-8": (True, 0, 8, False),
    "own-first": (True, -1, None, False),
    "one-8": (False, 0, 8, False),
    "own-4": (True, 0, 4, False),
    "own-peers": (True, 0, None, True),
    "one-peers": (False, 0, None, True),
}
_MESHES: dict[int, DeviceMesh] = {}


def mesh_of(variant: str, mesh: DeviceMesh) -> DeviceMesh:
    """The variant's mesh; all processes ask for the same ones in the same order."""
    blocks = VARIANTS[variant][2] if variant in VARIANTS else None
    if blocks is None or mesh.device_type == "cpu":
        return mesh
    if blocks not in _MESHES:
        options = dist.ProcessGroupNCCL.Options()
        options.config.max_ctas = blocks
        group = dist.new_group(backend="nccl", pg_options=options)
        _MESHES[blocks] = DeviceMesh.from_group(group, "cuda", mesh_dim_names=(SHARD,))
    return _MESHES[blocks]


@contextmanager
def gathering_as(variant: str, mesh: DeviceMesh) -> Iterator[None]:
    """While entered, layers are sharded to be gathered in the variant's way."""
    if variant not in VARIANTS or mesh.device_type == "cpu":
        yield
        return
    own, priority, _, peers = VARIANTS[variant]
    stream = torch.cuda.Stream(priority=priority) if own else None
    before, built = sharded.gathering_stream, sharded.ShardedLayer.__init__
    group = mesh.get_group(SHARD)

    def build(self: Any, *arguments: Any) -> None:
        built(self, *arguments)
        if peers:
            parts = [part.to_local().view(torch.uint8).flatten() for part in self._module.parameters()]
            self._module.set_custom_all_gather(PeerCopies(torch.cat(parts), group))

    sharded.gathering_stream = lambda device: stream
    sharded.ShardedLayer.__init__ = build
    try:
        yield
    finally:
        sharded.gathering_stream, sharded.ShardedLayer.__init__ = before, built


class PeerCopies:
    """FSDP2's all-gather of frozen shards by copies out of the other GPUs' memory, which no kernel runs for."""

    def __init__(self, share: Tensor, group: dist.ProcessGroup) -> None:
        import torch.distributed._symmetric_memory as symmetric

        self._share = symmetric.empty(share.numel(), dtype=torch.uint8, device=share.device)
        self._share.copy_(share)
        torch.cuda.synchronize()  # the other GPUs may read it when all have met
        self._handle = symmetric.rendezvous(self._share, group.group_name)
        self._peers = [
            (rank, self._handle.get_buffer(rank, (share.numel(),), torch.uint8))
            for rank in range(group.size())
            if rank != group.rank()
        ]

    def allocate(self, size: Any, *, dtype: torch.dtype, device: torch.device) -> Tensor:
        return torch.empty(*size, dtype=dtype, device=device)

    def __call__(
        self, output_tensor: Tensor, input_tensor: Tensor, group: Any, async_op: bool = False
    ) -> None:
        rows = output_tensor.view(torch.uint8).view(group.size(), -1)
        for rank, share in self._peers:
            rows[rank].copy_(share)
