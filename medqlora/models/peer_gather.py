"""FSDP2's all-gather of frozen shards without a kernel: a GPU's copy engines read the other GPUs' memory.

NCCL's kernels take multiprocessors from the products that they run beside. Shards that never change need neither them
nor a process that sends: each reads the others' when it likes.
"""

import os
import socket
from collections.abc import Sequence
from functools import cache

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from medqlora.compat.torch import mapped, readable_by_peers
from medqlora.models.weight_shares import group_of


@cache
def peers_readable(mesh: DeviceMesh) -> bool:
    """Whether the GPUs that share a base can read each other's memory; all processes of the mesh call it together.

    They have to be of one host, linked, and visible to each process; `NCCL_P2P_DISABLE=1` says that it doesn't work.
    """
    if mesh.device_type != "cuda":
        return False
    group = group_of(mesh)
    own = torch.cuda.current_device()
    places: list[tuple[str, str]] = [("", "")] * group.size()
    dist.all_gather_object(places, (socket.gethostname(), _uuid(own)), group=group)
    visible = {_uuid(index): index for index in range(torch.cuda.device_count())}
    host, _ = places[group.rank()]
    readable = os.environ.get("NCCL_P2P_DISABLE") != "1" and all(
        name == host
        and uuid in visible
        and (visible[uuid] == own or torch.cuda.can_device_access_peer(own, visible[uuid]))
        for name, uuid in places
    )
    readable = _all(readable and len(set(places)) == len(places), group)
    return readable and _all(_maps(torch.device("cuda", own), group), group)


def _all(answer: bool, group: dist.ProcessGroup) -> bool:
    answers = [False] * group.size()
    dist.all_gather_object(answers, answer, group=group)
    return all(answers)


def _maps(device: torch.device, group: dist.ProcessGroup) -> bool:
    """Whether a small tensor of each process can be mapped: a container may forbid it."""
    try:
        with readable_by_peers(device):
            tensor = torch.zeros(1, dtype=torch.uint8, device=device)
        mapped(tensor, group)
    except (AttributeError, ImportError, RuntimeError):
        return False
    return True


def _uuid(index: int) -> str:
    return str(torch.cuda.get_device_properties(index).uuid)


class PeerGather:
    """An all-gather for `FSDPModule.set_custom_all_gather`.

    Args:
        shards: the shard of each process, by rank, [bytes] uint8; all are readable on this process's GPU.
        rank: this process's.
        mapping: what has to live as long as they do.
    """

    def __init__(self, shards: Sequence[Tensor], rank: int, mapping: object) -> None:
        self._mapping = mapping
        self._peers = [(peer, shard) for peer, shard in enumerate(shards) if peer != rank]

    def allocate(self, size: Sequence[int], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        """The message, [processes * values of a shard]."""
        return torch.empty(*size, dtype=dtype, device=device)

    def __call__(
        self, output_tensor: Tensor, input_tensor: Tensor, group: dist.ProcessGroup, async_op: bool = False
    ) -> None:
        """Reads the peers' shards into the message, on the present stream; this process's is already in it."""
        rows = output_tensor.view(torch.uint8).view(group.size(), -1)
        for peer, shard in self._peers:
            rows[peer].copy_(shard)
