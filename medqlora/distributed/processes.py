"""Data-parallel strategies: one all-reduce of the LoRA gradients per step; the 4-bit base is replicated or sharded."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from medqlora.compat.lightning import UnwrappedDDP, kill_started_processes
from medqlora.models.weight_shares import SHARD
from medqlora.utils.distributed_errors import LostProcessError, patience, together

T = TypeVar("T")
#: timeout while the processes of a machine load a large base model one after another
_PATIENCE_LOADING = timedelta(hours=6)
#: seconds that a failed process has to end by itself
_GRACE_S = 20.0


class DDPStrategy4bit(UnwrappedDDP):
    """Lightning's DDP without torch's wrapper: the training step sums the gradients itself, once a step.

    The wrapper sends gradients in every backward, and needs the same number of backwards in each process. Here the
    processes differ in their number of micro-batches, and the fused engine's gradients bypass autograd's hooks. Each
    process reads the base model itself and draws the same adapters from the same seed, so nothing is broadcast.

    Args:
        options: those of `lightning.pytorch.strategies.DDPStrategy`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(timeout=patience(), **options)

    def barrier(self, name: str | None = None) -> None:
        with together():
            super().barrier(name)

    def broadcast(self, obj: T, src: int = 0) -> T:
        with together():
            return super().broadcast(obj, src)

    def on_exception(self, exception: BaseException) -> None:
        """Kills the started processes after another process was lost: they may hang, and would not hear of it."""
        super().on_exception(exception)
        if isinstance(exception, LostProcessError):
            # Lightning's teardown waits for the GPU, and the GPU for the lost process
            end_in_time(self, 1)
            kill_started_processes(self, forget=True)

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any = None
    ) -> None:
        """Raises the writing process's OSError in all processes; the others would wait for it."""
        error = None
        try:
            super().save_checkpoint(checkpoint, filepath, storage_options)
        except OSError as own:
            error = own
        error = self.broadcast(error)
        if error is not None:
            raise error


class ShardedBaseStrategy(DDPStrategy4bit):
    """The same with one 4-bit base model for the processes of a machine: `--trainer.strategy fsdp`.

    torch's FSDP2 holds the shards (`models.sharded`). What is trained is replicated, and its gradients travel once a
    step, so this is a data-parallel strategy: Lightning's `ModelParallelStrategy` would add checkpoints of DTensors.
    With several machines each has the complete base (HSDP), and layers travel within a machine alone.

    Attributes:
        mesh: of the processes, dimensions "replicate" (machines, where there are several) and "shard".
        host: group for small messages through the host between the processes that share a base; gloo notices an
            ended process before the timeout.
    """

    def setup_environment(self) -> None:
        super().setup_environment()
        self.mesh, self.host = sharding_groups(self.root_device.type, self.num_processes)
        self._turns = _group_on_host(self.mesh, _PATIENCE_LOADING)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Lets one process of each machine enter at a time, so that host memory holds one whole base model."""
        turns = self.num_processes
        with together():
            for _ in range(self.local_rank):
                torch.distributed.barrier(self._turns)
        yield
        with together():
            for _ in range(self.local_rank, turns):
                torch.distributed.barrier(self._turns)

    def teardown(self) -> None:
        shared = getattr(self.lightning_module, "shared", None)
        if shared is not None:
            shared.discard()  # Lightning moves the model to the host, and the bytes of these weights are elsewhere
        super().teardown()


def sharding_groups(device_type: str, processes: int) -> tuple[DeviceMesh, torch.distributed.ProcessGroup]:
    """The mesh of all processes, and this process's group on the host; all processes call it together.

    Args:
        device_type: "cuda" or "cpu".
        processes: of each machine, which share a base; 1 shards one base over all machines.
    """
    world_size = torch.distributed.get_world_size()
    shards = world_size if processes == 1 else processes
    if shards == world_size:
        mesh = init_device_mesh(device_type, (shards,), mesh_dim_names=(SHARD,))
    else:
        mesh = init_device_mesh(
            device_type, (world_size // shards, shards), mesh_dim_names=("replicate", SHARD)
        )
    return mesh, _group_on_host(mesh, patience())


def _group_on_host(mesh: DeviceMesh, timeout: timedelta) -> torch.distributed.ProcessGroup:
    """The group on the host of the processes that share a base with this one; all processes call it together."""
    sharing = mesh.mesh.view(-1, mesh.size(mesh.ndim - 1)).tolist()
    groups = [torch.distributed.new_group(ranks, backend="gloo", timeout=timeout) for ranks in sharing]
    return groups[torch.distributed.get_rank() // len(sharing[0])]


def end_in_time(strategy: object, code: int) -> None:
    """Ends this process with `code`, and the processes it started, unless it ends by itself within seconds.

    Does nothing before the process group exists: no process waits for another then.

    Args:
        strategy: the Trainer's.
        code: exit code.
    """
    if not torch.distributed.is_initialized():
        return

    def end() -> None:
        kill_started_processes(strategy)
        os._exit(code)

    timer = threading.Timer(_GRACE_S, end)
    timer.daemon = True
    timer.start()
