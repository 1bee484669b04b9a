"""The library's messages to its user: records of the logger "medqlora", printed as plain lines by default.

Standard logging controls them: `logging.getLogger("medqlora")` takes another level or handler.
"""

import logging
import os
import sys

from medqlora.utils.screen import SCREEN
from medqlora.utils.terminal import printable

_LOGGER = logging.getLogger("medqlora")
#: as Lightning reads them; LOCAL_RANK comes before SLURM's, which is also set where SLURM starts no processes
_RANK_VARIABLES = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")


class StdoutHandler(logging.Handler):
    """Writes each record as a plain line to the current `sys.stdout`, and flushes, so that a pipe gets it at once."""

    def emit(self, record: logging.LogRecord) -> None:
        """Raises OSError where nobody reads the output any more, as `print` does."""
        with SCREEN.hidden():  # a progress line must not end up beside it
            print(self.format(record), flush=True)


def say(line: str) -> None:
    """Logs a message on the first process alone; control characters are escaped."""
    if process_rank() == 0:
        _LOGGER.info(printable(line))


def process_rank() -> int:
    """This process's rank in a run of several: from torch.distributed, or before that from the environment."""
    # looked up, not imported: where torch isn't loaded, no process group is there
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return int(distributed.get_rank())
    named = next((os.environ[name] for name in _RANK_VARIABLES if name in os.environ), "0")
    if named == "0" and "RANK" not in os.environ:
        # Lightning's own launcher numbers the processes of each node from 0
        named = os.environ.get("NODE_RANK", os.environ.get("GROUP_RANK", "0"))
    return int(named) if named.isdecimal() else 0


if not _LOGGER.handlers:  # a user's own handler, set before this import, stays
    _LOGGER.addHandler(StdoutHandler())
    _LOGGER.propagate = False  # a handler of the root logger would print each line again
if _LOGGER.level == logging.NOTSET:
    _LOGGER.setLevel(logging.INFO)
