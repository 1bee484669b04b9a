"""The end of a process whose parent is gone."""

import ctypes
import os
import signal

#: of prctl(2), Linux
_PR_SET_PDEATHSIG = 1


def end_with_parent(parent: int) -> None:
    """From now on this process gets SIGTERM when its parent ends, also by SIGKILL; on Linux alone.

    Args:
        parent: the parent's process id. Where it is gone already, this process gets the signal at once.
    """
    try:
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
    except (OSError, AttributeError, TypeError):
        return
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)
