"""Host memory that is free: of the machine, and of the container that the process may run in."""

from pathlib import Path

import psutil

#: (limit, use) of a control group's memory, version 2 and version 1
_CONTROL_GROUP = (
    ("memory.max", "memory.current"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
)


def free_host_bytes(groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that this process may still take.

    Args:
        groups: where the kernel shows the control group's limits; they are not looked for elsewhere.
    """
    free = int(psutil.virtual_memory().available)
    for limit, used in _CONTROL_GROUP:
        try:
            left = int((groups / limit).read_text()) - int((groups / used).read_text())
        except (OSError, ValueError):  # no such group, or its limit is "max"
            continue
        free = min(free, max(0, left))
    return free
