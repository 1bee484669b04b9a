"""Attention and bitsandbytes, run on a small example and compared with the right result."""

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

from medqlora.commands.diagnosis.finding import Finding, first_line, trouble
from medqlora.utils.versions import installed

if TYPE_CHECKING:
    import torch

#: half of NF4's widest gap, from -1 to -0.6961928 (Dettmers et al., 2023, https://arxiv.org/abs/2305.14314,
#: appendix E): the largest distance of a value from its code, as a share of the block's largest value
_NF4_ERROR = (1 - 0.6961928) / 2
_BLOCK = 64
#: bitsandbytes keeps the state of smaller parameters in 32 bits
_MIN_8BIT = 4096


def attention(device: "torch.device", wanted: str | None = None, *, needed: bool = True) -> list[Finding]:
    """Runs each attention implementation that is available on a small example, and compares the result.

    Args:
        device: where it runs.
        wanted: the backend's option `attention`.
        needed: whether the fit would run there.
    """
    import torch

    from medqlora.fused.kernels.attention import flash_runs

    found = [_attends("SDPA", device, torch.float32, 2e-3, needed=needed)]
    if flash_runs(device, torch.bfloat16, 64):
        found.append(_attends("torch varlen flash", device, torch.bfloat16, 3e-2, needed=needed))
    else:
        why = "needs a CUDA GPU of compute capability 8.0 and half precision: the slower SDPA runs instead"
        found.append(Finding("attention", "torch varlen flash", "note", why))
    found.append(_flash_attn(needed=wanted == "flash_attention_2"))
    return found


def _attends(
    name: str, device: "torch.device", dtype: "torch.dtype", tolerance: float, *, needed: bool
) -> Finding:
    """Compares the engine's attention on two packed examples with softmax(q kᵀ / √d) v in float64."""
    import torch

    from medqlora.fused.kernels.attention import Segments, attend

    state = trouble(needed)
    generator = torch.Generator().manual_seed(0)
    lengths, heads, width = [5, 11], 2, 64
    q, k, v = (torch.randn(sum(lengths), heads, width, generator=generator).to(dtype) for _ in range(3))
    try:
        starts = torch.tensor([0, 5, 16], dtype=torch.int32, device=device)
        segments = Segments(lengths, max(lengths), starts, starts)
        out = attend(q.to(device), k.to(device), v.to(device), segments).out.double().cpu()
    except Exception as error:  # a kernel that isn't built for this GPU raises its own errors
        fix = "install a torch that is built for this GPU and driver"
        return Finding("attention", name, state, first_line(error), fix)
    parts = []
    for queries, keys, values in zip(*(x.double().split(lengths) for x in (q, k, v)), strict=True):
        scores = torch.einsum("qhd,khd->hqk", queries, keys) / width**0.5
        hidden = torch.ones_like(scores, dtype=torch.bool).triu(1)
        parts.append(torch.einsum("hqk,khd->qhd", scores.masked_fill(hidden, -torch.inf).softmax(-1), values))
    off = float((out - torch.cat(parts)).abs().max())
    if not off <= tolerance:  # also for NaN
        fix = "its results are wrong here: install another torch build"
        return Finding("attention", name, state, f"off by {off:.2g} in {dtype} on {device}", fix)
    return Finding("attention", name, "ok", f"runs on {device}, in {str(dtype).removeprefix('torch.')}")


def _flash_attn(*, needed: bool) -> Finding:
    if installed("flash-attn") is None:
        if not needed:
            return Finding("attention", "flash-attn", "note", "not installed, and not needed")
        return Finding(
            "attention",
            "flash-attn",
            "wrong",
            "--model.backend.attention flash_attention_2 needs it, and it is not installed",
            "--model.backend.attention auto",
        )
    try:
        import_module("flash_attn")
    except Exception as error:  # built for another torch: an ImportError, or the loader's OSError
        fix = "build it for this torch, or uninstall it, or --model.backend.attention sdpa"
        return Finding(
            "attention", "flash-attn", trouble(needed), f"it can't be imported ({first_line(error)})", fix
        )
    return Finding("attention", "flash-attn", "ok", "installed, and can be imported")


# ---- bitsandbytes ------------------------------------------------------------------------------------


def bitsandbytes(device: "torch.device", *, needed: bool = True) -> list[Finding]:
    """Tests NF4 quantization and one step of 8-bit AdamW on `device`."""
    return [
        _tested(f"NF4 on {device}", _nf4, device, needed=needed),
        _tested(f"8-bit AdamW on {device}", _adamw, device, needed=needed),
    ]


def _tested(
    name: str, test: "Callable[[torch.device], str]", device: "torch.device", *, needed: bool
) -> Finding:
    try:
        return Finding("bitsandbytes", name, "ok", test(device))
    except Exception as error:  # its native library is missing, or wasn't built for this GPU
        fix = "pip install --force-reinstall bitsandbytes; `python -m bitsandbytes` tells more"
        return Finding("bitsandbytes", name, trouble(needed), first_line(error), fix)


def _nf4(device: "torch.device") -> str:
    """Raises bitsandbytes' own errors, or ArithmeticError where the quantization error is larger than NF4's."""
    import torch

    from medqlora.models.quantization import import_bitsandbytes

    functional = import_bitsandbytes().functional
    weight = torch.randn(128, _BLOCK, generator=torch.Generator().manual_seed(0)).to(device)
    packed, state = functional.quantize_4bit(weight, blocksize=_BLOCK, quant_type="nf4")
    back = functional.dequantize_4bit(packed, state)
    off = (back.float() - weight).abs().amax(1) / weight.abs().amax(1)
    worst = float(off.max())
    if packed.numel() * 2 != weight.numel():
        raise ArithmeticError(f"{weight.numel()} values became {packed.numel()} bytes, not half as many")
    if not worst <= _NF4_ERROR * 1.001:
        raise ArithmeticError(
            f"off by {worst:.3f} of a block's largest, where the format allows {_NF4_ERROR:.3f}"
        )
    return f"there and back: off by {worst:.3f} of a block's largest at most, {_NF4_ERROR:.3f} allowed"


def _adamw(device: "torch.device") -> str:
    """Raises bitsandbytes' own errors, or ArithmeticError: Adam's first step must be the learning rate × sign."""
    import torch

    from medqlora.models.quantization import import_bitsandbytes

    rate = 0.01
    gradient = torch.randn(_MIN_8BIT, generator=torch.Generator().manual_seed(0)).to(device)
    parameter = torch.nn.Parameter(torch.ones(_MIN_8BIT, device=device))
    parameter.grad = gradient.clone()
    optimizer = import_bitsandbytes().optim.AdamW8bit([parameter], lr=rate, weight_decay=0.0)
    optimizer.step()
    off = float((parameter.detach() - 1 + rate * gradient.sign()).abs().max())
    if not off <= 0.01 * rate:
        raise ArithmeticError(f"its first step is off by {off / rate:.2g} of the learning rate")
    if optimizer.state[parameter]["state1"].dtype != torch.uint8:
        raise ArithmeticError(
            f"its state is held in {optimizer.state[parameter]['state1'].dtype}, not 8 bits"
        )
    return f"a step moved {_MIN_8BIT} parameters as Adam does, its state in 8 bits"
