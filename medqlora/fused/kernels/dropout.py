"""Dropout whose mask a seed reproduces, so that a backward needs no saved mask."""

import torch
from torch import Tensor

from medqlora.fused.seeds import DeviceSeed


def drop(x: Tensor, rate: float, seed: int) -> Tensor:
    """x with a share `rate` of its values set to 0, the others divided by 1 − rate."""
    generator = torch.Generator(x.device).manual_seed(seed)
    keep = torch.empty(x.shape, device=x.device, dtype=torch.bool).bernoulli_(1 - rate, generator=generator)
    return x * keep * (1 / (1 - rate))


def drop_on_device(x: Tensor, rate: float, seed: DeviceSeed) -> Tensor:
    """`drop` without the seed on the host: other masks on a GPU, the same on a CPU."""
    if x.device.type == "cpu":
        return drop(x, rate, int(seed.value) + seed.offset)
    from medqlora.fused.kernels.triton_dropout import drop as kernel

    out = torch.empty(x.shape, device=x.device, dtype=x.dtype)
    kernel(x, rate, seed.value, seed.offset, out)
    return out
