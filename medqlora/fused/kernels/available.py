"""What the device code needs."""

from importlib.util import find_spec


def has_triton() -> bool:
    """Whether Triton is installed: torch brings it with CUDA, not with its builds for a CPU."""
    return find_spec("triton") is not None
