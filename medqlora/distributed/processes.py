"""Data-parallel strategies: one all-reduce of the LoRA gradients per step; the 4-bit base is replicated or sharded."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch

from medqlora.compat.lightning import UnwrappedDDP, kill_started_processes
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
    """The same with one 4-bit base model for all processes: `--trainer.strategy fsdp`.

    Lightning's own strategies flatten parameters or make them DTensors, and a 4-bit weight then loses its scales. Here
    each process has all adapters, and a share of the frozen layers as bytes (`models.sharded`).
    """

    def setup_environment(self) -> None:
        super().setup_environment()
        #: group for small messages through the host; gloo notices an ended process before the timeout
        self.host = torch.distributed.new_group(backend="gloo", timeout=_PATIENCE_LOADING)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Lets one process of each machine enter at a time, so that host memory holds one whole base model."""
        turns = len(self.parallel_devices or ())
        with together():
            for _ in range(self.local_rank):
                torch.distributed.barrier(self.host)
        yield
        with together():
            for _ in range(self.local_rank, turns):
                torch.distributed.barrier(self.host)

    def teardown(self) -> None:
        shared = getattr(self.lightning_module, "shared", None)
        if shared is not None:
            shared.discard()  # Lightning moves the model to the host, and the bytes of these weights are elsewhere
        super().teardown()


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
