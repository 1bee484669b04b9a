"""The GPUs and their driver."""

import shutil
import subprocess
import warnings

from medqlora.commands.diagnosis.finding import Finding, first_line, trouble

_GIB = 2**30
_SMI_LIMIT_S = 10.0


def devices(*, needed: bool = False) -> list[Finding]:
    """The GPUs that torch finds, and the driver.

    Args:
        needed: whether the fit would run on one.
    """
    import torch

    with warnings.catch_warnings(record=True) as messages:
        warnings.simplefilter("always")
        usable = torch.cuda.is_available()
    driver = _driver()
    if not usable:
        if driver is None:
            return [Finding("device", "GPU", "note", "none found: what runs here runs on the CPU")]
        why = first_line(messages[0].message) if messages else f"torch {torch.__version__} can't use it"  # type: ignore[arg-type]
        fix = "install torch's CUDA build for this driver (https://pytorch.org/get-started/locally)"
        if torch.version.cuda is not None:
            fix = f"update the driver to one of CUDA {torch.version.cuda}, or {fix}"
        return [Finding("device", "GPU", "note", f"the driver {driver} is there, but {why}: {fix}")]
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
        properties = torch.cuda.get_device_properties(index)
        free, total = torch.cuda.mem_get_info(index)
    except Exception as error:  # a GPU in another process's exclusive use, or lost: the driver's own errors
        fix = "see what `nvidia-smi` says of it, or choose another with CUDA_VISIBLE_DEVICES"
        return Finding("device", name, trouble(needed), first_line(error), fix)
    text = (
        f"{properties.name}, compute capability {properties.major}.{properties.minor}, "
        f"{free / _GIB:.1f} of {total / _GIB:.1f} GiB free"
    )
    if free < total / 2:
        return Finding("device", name, "note", f"{text}: `nvidia-smi` shows what holds the rest")
    return Finding("device", name, "ok", text)


def _driver() -> str | None:
    """The NVIDIA driver's version; None where `nvidia-smi` is missing or fails."""
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
