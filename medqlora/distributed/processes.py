"""Several processes, each with its own base or its share of one: of what is trained, one message a step travels."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from lightning.pytorch.strategies import DDPStrategy, Strategy
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from torch import Tensor, nn

from medqlora.utils.distributed_errors import LostProcessError, patience, together

T = TypeVar("T")
#: how long a process waits where all others of its machine load a large base before it, one after another
_PATIENCE_LOADING = timedelta(hours=6)
#: what a process that failed may take to end by itself
_GRACE_S = 20.0


class DDPStrategy4bit(DDPStrategy):
    """Lightning's DDP without torch's wrapper: the module adds gradients up itself, once a step.

    The wrapper sends gradients in every backward, and wants as many of them from each process; here a process
    may have more micro-batches than another, or none, and the fused engine's gradients don't pass through
    autograd's hooks.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(timeout=patience(), **options)

    def _setup_model(self, model: nn.Module) -> Any:
        return model  # every process drew the same adapters from the same seed

    def setup(self, trainer: Any) -> None:
        """Without the wrapper; and without sending the base, which every process has read for itself."""
        # Lightning would ask all processes, and the device, before each step whether one is to end: the step's
        # own message says it
        trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = _nothing
        Strategy.setup(self, trainer)

    def barrier(self, name: str | None = None) -> None:
        with together():
            super().barrier(name)

    def broadcast(self, obj: T, src: int = 0) -> T:
        with together():
            return super().broadcast(obj, src)

    def on_exception(self, exception: BaseException) -> None:
        """Ends what the first process began: one that is stopped wouldn't hear of it."""
        super().on_exception(exception)
        if not isinstance(exception, LostProcessError):
            return
        # on a GPU Lightning's tearing down waits for what is in flight, and that waits for the lost one
        end_in_time(self, 1)
        if isinstance(self.launcher, _SubprocessScriptLauncher):
            self.launcher.kill(signal.SIGKILL)
            # Lightning's observer looks at this list, and would kill this process before it has spoken
            self.launcher.procs.clear()

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        """Raises what the writing process met in all of them: one alone would leave the others waiting."""
        error = None
        try:
            super().save_checkpoint(checkpoint, filepath, storage_options)
        except OSError as found:
            error = found
        error = self.broadcast(error)
        if error is not None:
            raise error


class ShardedBaseStrategy(DDPStrategy4bit):
    """The same with one 4-bit base for all: `--trainer.strategy fsdp`.

    Lightning's own strategies of that name flatten parameters or make them torch's DTensors; a 4-bit weight is
    then without its scales. Here the adapters are in every process, as ever, and the frozen layers are shared
    out as bytes (`models.sharded`).
    """

    def setup_environment(self) -> None:
        super().setup_environment()
        #: small messages that the device needn't know of; a process that ends is noticed whatever the patience
        self.host = torch.distributed.new_group(backend="gloo", timeout=_PATIENCE_LOADING)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Entered by one process of each machine at a time: the host holds one whole base, not several."""
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
            shared.discard()  # Lightning moves the model to the host: of these weights the bytes are elsewhere
        super().teardown()


def _nothing() -> None: ...


def end_in_time(strategy: Any, code: int) -> None:
    """Ends this process with `code`, and those that it began, unless it has ended by itself in a few seconds.

    Before it has met the others it waits for none of them, and is left alone.

    Args:
        strategy: the Trainer's.
        code: the exit code.
    """
    if not torch.distributed.is_initialized():
        return

    def end() -> None:
        launcher = getattr(strategy, "launcher", None)
        if isinstance(launcher, _SubprocessScriptLauncher):
            launcher.kill(signal.SIGKILL)
        os._exit(code)

    timer = threading.Timer(_GRACE_S, end)
    timer.daemon = True  # it keeps no process that has ended
    timer.start()


class AsyncScalar:
    """A number on its way from the device: read a step later, when it has long arrived, it keeps nobody waiting."""

    def __init__(self) -> None:
        self._value: Tensor | None = None
        self._arrived: Any = None

    def send(self, value: Tensor) -> None:
        if value.device.type != "cuda":
            self._value = value.clone()
            return
        self._value = torch.empty(value.shape, dtype=value.dtype, pin_memory=True)
        self._value.copy_(value, non_blocking=True)
        self._arrived = torch.cuda.Event()
        self._arrived.record()

    def read(self) -> float:
        """The last number that was sent, 0 before the first."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return 0.0 if self._value is None else float(self._value)


def gather(mine: list[T], world_size: int) -> list[T]:
    """Everyone's items, on every process; no order is promised."""
    if world_size == 1:
        return mine
    found: list[list[T] | None] = [None] * world_size
    with together():
        torch.distributed.all_gather_object(found, mine)
    return [item for part in found if part is not None for item in part]
