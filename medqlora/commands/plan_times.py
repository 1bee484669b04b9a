"""Estimated times of a fit on several GPUs, side by side."""

from typing import TYPE_CHECKING

from medqlora.commands.plan_report import GPUTimes

if TYPE_CHECKING:
    from medqlora.commands.plan_inputs import Fit
    from medqlora.planner.speed import GPU
    from medqlora.training.fit_plan import FitPlan

#: numbers of GPUs that are shown
_DEVICES = (1, 2, 4, 8)


def speeds(fit: "Fit", fitted: "FitPlan", gpu: "GPU", devices: int) -> tuple[float, float]:
    """The least and most tokens per second; all processes wait for the one with the most tokens."""
    from medqlora.planner.fitting import imbalance
    from medqlora.planner.speed import tokens_per_s

    low, high = tokens_per_s(fitted.setting, fit.epoch_flops() / fit.tokens, gpu.tflops)
    factor = devices / imbalance(fitted.work._replace(devices=devices))
    return low * factor, high * factor


def minutes(fit: "Fit", fitted: "FitPlan", gpu: "GPU", devices: int) -> list[float]:
    """The least and most minutes of training, without validation."""
    tokens = fit.tokens * fit.run_steps / fit.steps
    return [tokens / speed / 60 for speed in reversed(speeds(fit, fitted, gpu, devices))]


def gpu_times(fit: "Fit", only: "GPU | None") -> list[GPUTimes]:
    """For each GPU that the planner knows, whether the fit's plan fits it, and its minutes on 1 to 8 of them.

    Args:
        fit: the fit.
        only: leaves out all others.
    """
    from medqlora.planner.fitting import RESERVE
    from medqlora.planner.speed import GPUS

    rows: list[GPUTimes] = []
    counts = sorted({*_DEVICES, fit.devices} - ({1} if fit.shards > 1 else set()))
    for name, gpu in GPUS.items():
        if only is not None and gpu is not only:
            continue
        room = int((1 - RESERVE) * gpu.memory_gb * 1e9)
        fitted = fit.planned(gpu, room)
        rows.append(
            {
                "gpu": name,
                "engine": fitted.setting.engine,
                "fits": fitted.plan.peak <= room,
                "minutes": {str(count): minutes(fit, fitted, gpu, count) for count in counts},
            }
        )
    return rows
