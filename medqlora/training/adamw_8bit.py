"""bitsandbytes' 8-bit AdamW by a faster kernel with the same bits, on a GPU that has Triton."""

from functools import lru_cache
from typing import NamedTuple, Protocol, cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from medqlora.fused.kernels.available import has_triton
from medqlora.models.quantization import import_bitsandbytes

#: values that share a scale
BLOCK = 256
#: blocks and steps of the comparison with bitsandbytes' kernel
_BLOCKS, _STEPS = 64, 3


class Settings(NamedTuple):
    """AdamW's: decay rates of the moments, and what is added to the root, to the weights, and taken from them."""

    betas: tuple[float, float]
    eps: float
    rate: float
    decay: float


class Moments(NamedTuple):
    """Both moments of N values in 8 bits, under bitsandbytes' names.

    Attributes:
        state1, state2: [N] uint8: codes.
        absmax1, absmax2: [N / 256] float32: scales.
        qmap1, qmap2: [256] float32: the numbers of the codes.
    """

    state1: Tensor
    state2: Tensor
    absmax1: Tensor
    absmax2: Tensor
    qmap1: Tensor
    qmap2: Tensor


#: address of a quantization map → the map, which so keeps its address, and its thresholds
Limits = dict[int, tuple[Tensor, Tensor]]


class _Configured(Protocol):
    """The part of bitsandbytes' optimizers that says what they do."""

    optimizer_name: str
    is_paged: bool

    def get_config(
        self, group_index: int, index: int, group: dict[str, object]
    ) -> dict[str, float | bool | tuple[float, ...]]: ...


class FastAdamW8bit:
    """Updates tensors in place of bitsandbytes' `update_step`, where its kernel has the same bits.

    Args:
        inner: any optimizer; tensors of others than bitsandbytes' 8-bit AdamW are left to it.
    """

    def __init__(self, inner: Optimizer) -> None:
        known = hasattr(inner, "get_config") and hasattr(inner, "optimizer_name")
        self._inner = cast(_Configured, inner) if known else None
        self._limits: Limits = {}

    def update(self, group: dict[str, object], part: Tensor, index: int, state: dict[str, object]) -> bool:
        """Takes a step of the tensor `part` with its gradient; whether it did."""
        inner, gradient = self._inner, part.grad
        if inner is None or inner.optimizer_name != "adam" or inner.is_paged or gradient is None:
            return False
        if not part.is_cuda or part.numel() % BLOCK or not same_bits(part.device):
            return False
        values = [state.get(name) for name in Moments._fields]
        config = inner.get_config(0, index, group)
        if (
            not all(isinstance(value, Tensor) for value in values)
            or config["max_unorm"]
            or config["skip_zeros"]
        ):
            return False
        moments = Moments(*cast(list[Tensor], values))
        if moments.state1.dtype != torch.uint8 or not (part.is_contiguous() and gradient.is_contiguous()):
            return False
        step = state["step"] = cast(int, state["step"]) + 1
        betas = cast(tuple[float, ...], config["betas"])
        numbers = (float(cast(float, config[name])) for name in ("eps", "lr", "weight_decay"))
        run(part, gradient, moments, Settings((betas[0], betas[1]), *numbers), step, self._limits)
        return True


def thresholds(code: Tensor) -> Tensor:
    """[256] float32: entry k is the largest number that bitsandbytes rounds to one of the codes 0 to k.

    Its search ends at an even code. From there it compares with the middle between two codes, and that decides to which
    one the middle itself belongs.

    Args:
        code: [256] float32, ascending: the numbers of a quantization map.
    """
    middle = (code[:-1] + code[1:]) * 0.5
    below = torch.nextafter(middle, torch.full_like(middle, -torch.inf))
    odd = torch.arange(255, device=code.device) % 2 == 1
    return torch.cat((torch.where(odd, below, middle), code.new_full((1,), torch.inf)))


def run(
    weights: Tensor,
    gradients: Tensor,
    moments: Moments,
    settings: Settings,
    step: int,
    limits: Limits,
) -> None:
    """One step by the Triton kernel; `limits` keeps what is computed once for each quantization map."""
    from medqlora.training import triton_adamw

    first, second = (_limits(code, limits) for code in (moments.qmap1, moments.qmap2))
    with torch.cuda.device(weights.device):  # Triton launches on the current one
        triton_adamw.update(weights, gradients, moments, (first, second), settings, step)


def _limits(code: Tensor, limits: Limits) -> Tensor:
    place = code.data_ptr()
    if place not in limits:
        limits[place] = (code, thresholds(code))
    return limits[place][1]


@lru_cache(maxsize=16)
def same_bits(device: torch.device) -> bool:
    """Whether the kernel gives the bits of bitsandbytes' on this GPU, in steps of a few values of every kind."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 0) or not has_triton():
        return False
    functional = import_bitsandbytes().functional
    maps = [functional.create_dynamic_map(signed=signed).to(device) for signed in (True, False)]
    size = _BLOCKS * BLOCK
    generator = torch.Generator().manual_seed(0)
    runs = []
    for _ in range(2):
        zeros = [torch.zeros(size, dtype=torch.uint8, device=device) for _ in range(2)]
        scales = [torch.zeros(_BLOCKS, device=device) for _ in range(2)]
        runs.append((torch.linspace(-1, 1, size, device=device), Moments(*zeros, *scales, *maps)))
    (own, mine), (other, theirs) = runs
    limits: Limits = {}
    for step in range(1, _STEPS + 1):
        # from block to block from 1e-24, whose squares underflow, to 1e8
        gradients = torch.randn(_BLOCKS, BLOCK, generator=generator)
        gradients *= torch.logspace(-24, 8, _BLOCKS)[:, None]
        gradients[::5, ::3] = 0.0
        gradients[7] = 0.0
        gradients[9, :4] = torch.tensor([torch.nan, torch.inf, -torch.inf, -0.0])
        flat = gradients.flatten().to(device)
        decay = 0.1 * (step % 2)
        run(own, flat, mine, Settings((0.9, 0.999), 1e-8, 1e-3, decay), step, limits)
        functional.optimizer_update_8bit_blockwise(
            "adam", flat, other, theirs.state1, theirs.state2, 0.9, 0.999, 0.0, 0.0, 1e-8, step, 1e-3,
            theirs.qmap1, theirs.qmap2, theirs.absmax1, theirs.absmax2, decay, gnorm_scale=1.0, skip_zeros=False,
        )  # fmt: skip
    pairs = zip((own, *mine[:4]), (other, *theirs[:4]), strict=True)
    return all(torch.equal(a.view(torch.uint8), b.view(torch.uint8)) for a, b in pairs)
