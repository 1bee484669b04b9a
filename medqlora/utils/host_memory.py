"""What this process holds in host memory."""

import sys

import psutil

_GIB = 2**30


def resident_gib() -> float:
    """Now."""
    return psutil.Process().memory_info().rss / _GIB


def peak_gib() -> float:
    """At most since it began. The kernel brings it up to date now and then: it can lag behind `resident_gib`."""
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset / _GIB
    import resource  # Windows has none

    # in KiB on Linux and in bytes on macOS: getrusage(2)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / _GIB
