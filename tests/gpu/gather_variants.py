"""Ways to gather a sharded layer, to see what each costs; `sharded_layers.py` measures them."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
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
    before = sharded.gathering_stream, sharded.peers_readable
    sharded.gathering_stream = lambda device: stream
    sharded.peers_readable = lambda mesh: peers
    try:
        yield
    finally:
        sharded.gathering_stream, sharded.peers_readable = before
