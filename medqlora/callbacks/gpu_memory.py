"""The memory of each phase of a run: the GPU's, or without a GPU the process's."""

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from medqlora.config.callbacks import GPUMemoryOptions
from medqlora.utils.console import say
from medqlora.utils.host_memory import peak_gib, resident_gib

_GIB = 2**30


class GPUMemory(Callback):
    """Records memory per phase (load, fit, validate, test): to the logger, and as a table at the end.

    On a GPU: the tensors' memory at the phase's end (`allocated`), the memory that torch has taken from the driver
    (`reserved`), and the peaks of both. On a CPU: the process's resident memory, sampled after each batch, and its
    peak.

    Args:
        values, options: those of `medqlora.config.GPUMemoryOptions`.
    """

    def __init__(self, *values: object, **options: object) -> None:
        self.log = GPUMemoryOptions(*values, **options).log  # type: ignore[arg-type]  # checked where the options are read
        #: phase → figure ("allocated", "reserved", "peak_allocated", "peak_reserved") → GiB
        self.phases: dict[str, dict[str, float]] = {}
        self._cuda: torch.device | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        device = trainer.strategy.root_device
        self._cuda = device if device.type == "cuda" else None
        self._reset()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # a resumed run is still at step 0 here, and logged this before
        self._end("load", trainer, log=trainer.ckpt_path is None)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        self._end("load" if trainer.state.fn == "validate" else "fit", trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        self._end("validate", trainer)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end("load", trainer)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end("test", trainer)
        say("\n" + self.table())

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: object) -> None:
        if self._cuda is None:
            self._record("fit")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end("fit", trainer)  # at `on_fit_end` Lightning has already moved the model off the GPU

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        say("\n" + self.table())

    def _reset(self) -> None:
        if self._cuda is not None:
            torch.cuda.reset_peak_memory_stats(self._cuda)

    def _record(self, phase: str) -> None:
        current = _cuda_memory(self._cuda) if self._cuda is not None else _host_memory()
        before = self.phases.get(phase, {})
        self.phases[phase] = {
            name: max(value, before.get(name, 0.0)) if name.startswith("peak") else value
            for name, value in current.items()
        }

    def _end(self, phase: str, trainer: Trainer, *, log: bool = True) -> None:
        """Closes a phase: the peaks since the last call belong to it."""
        self._record(phase)
        self._reset()
        if self.log and log and trainer.loggers and phase in self.phases:
            metrics = {f"memory/{phase}/{name}_gib": value for name, value in self.phases[phase].items()}
            for logger in trainer.loggers:
                logger.log_metrics(metrics, step=trainer.global_step)

    def table(self) -> str:
        """The phases, a line each, in GiB."""
        kind = "GPU" if self._cuda is not None else "Host"
        names = list(next(iter(self.phases.values()), {}))
        lines = [f"{kind + ' memory, GiB':<18}" + "".join(f"{name.replace('_', ' '):>16}" for name in names)]
        lines += (
            f"  {phase:<16}" + "".join(f"{self.phases[phase][name]:>16.2f}" for name in names)
            for phase in ("load", "fit", "validate", "test")
            if phase in self.phases
        )
        return "\n".join(lines)


def _cuda_memory(device: torch.device) -> dict[str, float]:
    return {
        "allocated": torch.cuda.memory_allocated(device) / _GIB,
        "reserved": torch.cuda.memory_reserved(device) / _GIB,
        "peak_allocated": torch.cuda.max_memory_allocated(device) / _GIB,
        "peak_reserved": torch.cuda.max_memory_reserved(device) / _GIB,
    }


def _host_memory() -> dict[str, float]:
    resident = resident_gib()
    return {"resident": resident, "peak_resident": resident, "peak_of_process": max(peak_gib(), resident)}
