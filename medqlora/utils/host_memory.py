"""The host memory of this process."""

import sys

import psutil

_GIB = 2**30


def resident_gib() -> float:
    """The resident memory now."""
    return psutil.Process().memory_info().rss / _GIB


def peak_gib() -> float:
    """The highest resident memory so far. The kernel updates it now and then: it can lag behind `resident_gib`."""
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset / _GIB
    import resource  # not on Windows

    # in KiB on Linux and in bytes on macOS: getrusage(2)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / _GIB
