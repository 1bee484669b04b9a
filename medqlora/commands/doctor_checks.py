"""What `medqlora doctor` looks at, apart from the configuration: each check gives lines and never raises."""

import os
import platform
import shutil
import subprocess
import tempfile
import threading
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    import torch

_GIB = 2**30
#: releases that were made to do harm: such a package isn't imported, not even to ask what it is
MALICIOUS = {"lightning": ("2.6.2", "2.6.3")}
#: shown always, the others of the dependencies only when something is wrong with them
_SHOWN = ("torch", "lightning", "transformers", "peft", "bitsandbytes", "datasets")
_OPTIONAL = {
    "unsloth": "only medqlora.models.Unsloth needs it",
    "triton": "only a CUDA GPU needs it",
    "flash-attn": "only --model.backend.attention flash_attention_2 needs it",
}
#: half of NF4's widest gap, from -1 to -0.6961928 (Dettmers et al., 2023, https://arxiv.org/abs/2305.14314,
#: appendix E): no value of a block is further from its code, as a share of the block's largest
_NF4_ERROR = (1 - 0.6961928) / 2
_BLOCK = 64
#: bitsandbytes keeps the state of smaller parameters in 32 bits
_MIN_8BIT = 4096
#: below this a checkpoint of an 8B model's adapter (0.26 GB) and its curve may not fit
_LITTLE_BYTES = 10**9
_SMI_LIMIT_S = 10.0
HUB_LIMIT_S = 3.0


class Finding(NamedTuple):
    """One line of the report.

    Attributes:
        group: versions, device, attention, bitsandbytes, folders, Hub, or fit.
        name: what was looked at.
        state: "wrong" keeps a fit from starting, a "note" doesn't.
        found: what it is.
        fix: what to do, for every "wrong".
    """

    group: str
    name: str
    state: Literal["ok", "note", "wrong"]
    found: str
    fix: str | None = None


def first_line(error: BaseException) -> str:
    """An error's kind and the first line of what it says."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


# ---- versions ----------------------------------------------------------------------------------------


def versions(needed: frozenset[str] = frozenset()) -> list[Finding]:
    """medqlora, Python and the dependencies, each held against the bounds that medqlora was installed with.

    Args:
        needed: optional packages that the configuration uses ("unsloth", "flash-attn").
    """
    from medqlora import __version__

    found = [Finding("versions", "medqlora", "ok", __version__), _python()]
    try:
        requirements = metadata.requires("medqlora") or []
    except metadata.PackageNotFoundError:
        fix = "pip install -e ."
        found.append(
            Finding("versions", "bounds", "note", f"unknown: medqlora is not installed as a package: {fix}")
        )
        requirements = []
    found += _dependencies(requirements)
    named = {one.name for one in found}
    found += [Finding("versions", name, "ok", _version(name) or "") for name in _SHOWN if name not in named]
    for name, use in _OPTIONAL.items():
        if name in named:
            continue
        version = _version(name)
        if version is not None:
            found.append(Finding("versions", name, "ok", version))
        elif name in needed:
            fix = f"pip install {name}, or another choice in the configuration"
            found.append(
                Finding("versions", name, "wrong", "not installed, and this configuration uses it", fix)
            )
        else:
            found.append(Finding("versions", name, "note", f"not installed: {use}"))
    return found


def _python() -> Finding:
    from packaging.specifiers import SpecifierSet

    version = platform.python_version()
    try:
        bounds = str(metadata.metadata("medqlora").json.get("requires_python", ""))
    except metadata.PackageNotFoundError:
        bounds = ""
    if SpecifierSet(bounds).contains(version, prereleases=True):
        return Finding("versions", "Python", "ok", version)
    fix = f"make a virtual environment with a Python {bounds}"
    return Finding("versions", "Python", "wrong", f"{version} is outside of {bounds}", fix)


def _dependencies(requirements: list[str]) -> list[Finding]:
    """The core's requirements, and an extra's where it is installed."""
    from packaging.requirements import Requirement

    found = []
    for text in requirements:
        requirement = Requirement(text)
        name, version = requirement.name, _version(requirement.name)
        core = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if not core and (version is None or name not in _OPTIONAL):
            continue
        install = f"pip install '{name}{_extras(requirement)}{requirement.specifier}'"
        if version is None:
            found.append(Finding("versions", name, "wrong", "not installed", install))
        elif version in MALICIOUS.get(name, ()):
            fix = f"pip uninstall {name}, change the passwords and tokens this machine holds, then {install}"
            found.append(
                Finding("versions", name, "wrong", f"{version} was a malicious release: not imported", fix)
            )
        elif not requirement.specifier.contains(version, prereleases=True):
            outside = f"{version} is outside of {requirement.specifier}"
            found.append(Finding("versions", name, "wrong", outside, install))
        elif name in _SHOWN or not core:
            found.append(Finding("versions", name, "ok", version))
    return found


def _extras(requirement: Any) -> str:
    return f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def malicious() -> str | None:
    """ "name version" of a malicious release that is installed."""
    return next(
        (f"{name} {bad}" for name, bads in MALICIOUS.items() for bad in bads if _version(name) == bad), None
    )


# ---- device ------------------------------------------------------------------------------------------


def devices(*, needed: bool = False) -> list[Finding]:
    """The GPUs as torch sees them, and the driver.

    Args:
        needed: whether the fit would run on one.
    """
    import torch

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        usable = torch.cuda.is_available()
    driver = _driver()
    if not usable:
        if driver is None:
            return [Finding("device", "GPU", "note", "none found: what runs here runs on the CPU")]
        why = first_line(said[0].message) if said else f"torch {torch.__version__} can't use it"  # type: ignore[arg-type]
        fix = "install torch's CUDA build for this driver (https://pytorch.org/get-started/locally)"
        if torch.version.cuda is not None:
            fix = f"update the driver to one of CUDA {torch.version.cuda}, or {fix}"
        found = f"the driver {driver} is there, but {why}: {fix}"
        return [Finding("device", "GPU", "note", found)]
    return [
        *(_gpu(index, needed=needed) for index in range(torch.cuda.device_count())),
        Finding("device", "driver", "ok", f"{driver or 'its version is not known'}, {_runtime()}"),
    ]


def _runtime() -> str:
    import torch

    return (
        f"ROCm {torch.version.hip}" if torch.version.hip else f"torch is built for CUDA {torch.version.cuda}"
    )


def _gpu(index: int, *, needed: bool) -> Finding:
    import torch

    name = f"GPU {index}"
    try:
        one = torch.cuda.get_device_properties(index)
        free, total = torch.cuda.mem_get_info(index)
    except Exception as error:  # another process has it for itself, or it is lost: whatever the driver says
        fix = "see what `nvidia-smi` says of it, or choose another with CUDA_VISIBLE_DEVICES"
        return Finding("device", name, "wrong" if needed else "note", first_line(error), fix)
    text = (
        f"{one.name}, compute capability {one.major}.{one.minor}, "
        f"{free / _GIB:.1f} of {total / _GIB:.1f} GiB free"
    )
    if free < total / 2:
        return Finding("device", name, "note", f"{text}: `nvidia-smi` shows what holds the rest")
    return Finding("device", name, "ok", text)


def _driver() -> str | None:
    """The NVIDIA driver's version where `nvidia-smi` is there and answers."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    query = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=_SMI_LIMIT_S, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    lines = done.stdout.split("\n")
    return lines[0].strip() or None if done.returncode == 0 else None


# ---- attention ---------------------------------------------------------------------------------------


def attention(device: "torch.device", wanted: str | None = None, *, needed: bool = True) -> list[Finding]:
    """The paths on `device`, those that are there run on a small example and compared.

    Args:
        device: where to look.
        wanted: what the backend's `attention` asks for.
        needed: whether the fit would run there.
    """
    import torch

    from medqlora.engine.attention import flash_runs

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
    """Two packed examples through the engine's attention, against softmax(q kᵀ / √d) v written out in float64."""
    import torch

    from medqlora.engine.attention import Segments, attend

    state: Literal["note", "wrong"] = "wrong" if needed else "note"
    generator = torch.Generator().manual_seed(0)
    lengths, heads, width = [5, 11], 2, 64
    q, k, v = (torch.randn(sum(lengths), heads, width, generator=generator).to(dtype) for _ in range(3))
    try:
        starts = torch.tensor([0, 5, 16], dtype=torch.int32, device=device)
        segments = Segments(lengths, max(lengths), starts, starts)
        out = attend(q.to(device), k.to(device), v.to(device), segments).out.double().cpu()
    except Exception as error:  # a kernel that isn't built for this GPU raises what it likes
        fix = "install a torch that is built for this GPU and driver"
        return Finding("attention", name, state, first_line(error), fix)
    parts = []
    for queries, keys, values in zip(*(x.double().split(lengths) for x in (q, k, v)), strict=True):
        scores = torch.einsum("qhd,khd->hqk", queries, keys) / width**0.5
        hidden = torch.ones_like(scores, dtype=torch.bool).triu(1)
        parts.append(torch.einsum("hqk,khd->qhd", scores.masked_fill(hidden, -torch.inf).softmax(-1), values))
    off = float((out - torch.cat(parts)).abs().max())
    if not off <= tolerance:  # also where it is no number
        fix = "its results are wrong here: install another torch build"
        return Finding("attention", name, state, f"off by {off:.2g} in {dtype} on {device}", fix)
    return Finding("attention", name, "ok", f"runs on {device}, in {str(dtype).removeprefix('torch.')}")


def _flash_attn(*, needed: bool) -> Finding:
    if _version("flash-attn") is None:
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
        state: Literal["note", "wrong"] = "wrong" if needed else "note"
        return Finding("attention", "flash-attn", state, f"it can't be imported ({first_line(error)})", fix)
    return Finding("attention", "flash-attn", "ok", "installed, and can be imported")


# ---- bitsandbytes ------------------------------------------------------------------------------------


def bitsandbytes(device: "torch.device", *, needed: bool = True) -> list[Finding]:
    """NF4 there and back, and one step of 8-bit AdamW, on `device`."""
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
        return Finding("bitsandbytes", name, "wrong" if needed else "note", first_line(error), fix)


def _nf4(device: "torch.device") -> str:
    """Raises what bitsandbytes raises, or ArithmeticError when values come back further off than NF4 allows."""
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
    """Raises what bitsandbytes raises, or ArithmeticError: Adam's first step is the learning rate × sign."""
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


# ---- folders -----------------------------------------------------------------------------------------


def folder(name: str, path: Path, *, needed: bool, option: str) -> Finding:
    """Whether files can be written into `path`, which need not be there yet; nothing is left in it.

    Args:
        name: what the folder is for.
        path: the folder.
        needed: whether a fit has to write there.
        option: what chooses another one, for the fix.
    """
    path = path.expanduser()
    state: Literal["note", "wrong"] = "wrong" if needed else "note"
    place = path.absolute()
    while not place.is_dir():
        if place.exists() or place.is_symlink():
            fix = f"move that file away, or choose another folder with {option}"
            return Finding("folders", name, state, f"{path}: {place} is no folder", fix)
        place = place.parent
    try:
        with tempfile.TemporaryFile(dir=place) as stream:
            stream.write(b"x")
            stream.flush()
        free = shutil.disk_usage(place).free
    except OSError as error:
        fix = f"make {place} writable for you, or choose another folder with {option}"
        return Finding("folders", name, state, f"{path}: it can't be written ({error.strerror})", fix)
    there = "writable" if place == path.absolute() else "not there yet, and can be made"
    found = f"{path}: {there}, {free / 1e9:.1f} GB free"
    if free < _LITTLE_BYTES:
        return Finding("folders", name, "note", f"{found}: that is little: free some, or choose {option}")
    return Finding("folders", name, "ok", found)


# ---- Hub ---------------------------------------------------------------------------------------------


def hub_off() -> str | None:
    """The environment variable that keeps huggingface_hub off the network, if one does."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE"):
            return name
    return None


def hub(*, needed: bool, limit_s: float = HUB_LIMIT_S) -> Finding:
    """One HEAD request to the Hub, without a token, given up after `limit_s` seconds.

    Args:
        needed: whether a fit has to fetch something.
        limit_s: for everything, the name's look-up too, which urllib's own limit leaves out.
    """
    if (name := hub_off()) is not None:
        if needed:
            fix = f"unset {name}, or download the base elsewhere and pass the folder"
            return Finding("Hub", "Hub", "wrong", f"off by {name}, and the base is not in the cache", fix)
        return Finding("Hub", "Hub", "note", f"off by {name}")
    address = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    answers: list[str | None] = []
    thread = threading.Thread(target=lambda: answers.append(_head(address, limit_s)), daemon=True)
    thread.start()
    thread.join(limit_s)
    trouble = answers[0] if answers else f"no answer in {limit_s:g} s"
    if trouble is None:
        return Finding("Hub", "Hub", "ok", f"{address} answers")
    fix = "check the connection and its proxy, or download the base elsewhere and pass the folder"
    state: Literal["note", "wrong"] = "wrong" if needed else "note"
    return Finding("Hub", "Hub", state, f"{address}: {trouble}", fix)


def _head(address: str, limit_s: float) -> str | None:
    """What keeps the address from being reached; None when it answers, whatever it says."""
    try:
        request = urllib.request.Request(address, method="HEAD", headers={"User-Agent": "medqlora"})
        with urllib.request.urlopen(request, timeout=limit_s):
            return None
    except urllib.error.HTTPError as error:
        return None if error.code < 500 else f"it answers with {error.code}"
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return first_line(reason) if isinstance(reason, BaseException) else str(reason)


def weights(base: Path) -> Iterator[Finding]:
    """What a local base lacks of its weights, before anything loads them."""
    import json

    index = base / "model.safetensors.index.json"
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            fix = "copy or download it again"
            yield Finding("fit", "weights", "wrong", f"{index} can't be read ({first_line(error)})", fix)
            return
        missing = [name for name in names if not (base / name).is_file()]
        if missing:
            found = f"{base} lacks {len(missing)} of {len(names)} files, the first {missing[0]}"
            yield Finding("fit", "weights", "wrong", found, "copy or download the base again")
    elif not any(base.glob("*.safetensors")) and not any(base.glob("pytorch_model*.bin")):
        found = f"{base} holds no weights (model.safetensors)"
        yield Finding("fit", "weights", "wrong", found, "copy or download the base again")
