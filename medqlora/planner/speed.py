"""An estimate of a run's time: its floating-point operations over a measured share of the GPU's peak."""

import difflib
from typing import NamedTuple

from medqlora.errors import InputError
from medqlora.planner.memory import Setting


class GPU(NamedTuple):
    """A GPU by its data sheet: memory in GB (10^9 bytes), dense half-precision TFLOP/s."""

    memory_gb: float
    tflops: float
    fused: bool = True  # compute capability 8.0 or newer


#: from NVIDIA's data sheets, https://www.nvidia.com/en-us/data-center/ and /geforce/: without sparsity
GPUS = {
    "t4": GPU(16, 65, fused=False),
    "l4": GPU(24, 121),
    "a10": GPU(24, 125),
    "rtx3090": GPU(24, 71),
    "rtx4090": GPU(24, 165),
    "a100-40gb": GPU(40, 312),
    "a100-80gb": GPU(80, 312),
    "h100": GPU(80, 989),
    "h200": GPU(141, 989),
    "b200": GPU(192, 2250),
}
#: (engine, recomputes) → share of the peak in training steps on an H200, the only GPU measured: (least, most)
_SHARES = {("fused", True): (0.20, 0.42), ("fused", False): (0.45, 0.55), ("native", True): (0.04, 0.25)}
_SHARES["native", False] = (0.15, 0.30)


def gpu_named(name: str) -> GPU:
    """The GPU of that name.

    Raises:
        InputError: the name is unknown; the message has the nearest one.
    """
    plain = name.lower().replace(" ", "").replace("_", "-").removeprefix("nvidia").strip("-")
    if plain in GPUS:
        return GPUS[plain]
    near = difflib.get_close_matches(plain, GPUS, 1, 0.4)
    hint = f"did you mean {near[0]}?" if near else "choose one"
    raise InputError(f"--gpu {name}: not known: {hint} ({', '.join(GPUS)}), or pass --gpu-memory")


def tokens_per_s(setting: Setting, flops_per_token: float, tflops: float) -> tuple[float, float]:
    """The least and most tokens per second to expect."""
    low, high = _SHARES[setting.engine, setting.checkpointing not in ("none", 0)]
    return low * tflops * 1e12 / flops_per_token, high * tflops * 1e12 / flops_per_token
