"""Hides messages of libraries that come with every run and tell its user nothing."""

import logging
import re
import warnings

from medqlora.callbacks.event_files import silence_writer_threads
from medqlora.utils.console import say
from medqlora.utils.screen import SCREEN

_LOGGERS = (
    "lightning.pytorch.utilities.rank_zero",
    "lightning.pytorch.accelerators.cuda",
    "lightning.pytorch.trainer.connectors.checkpoint_connector",
    "lightning.fabric.utilities.rank_zero",
    "lightning.fabric.utilities.seed",
    "lightning.fabric.utilities.distributed",
)
_WARNINGS = (
    ".*does not have many workers.*",
    ".*is smaller than the logging interval.*",
    ".*`self.log_dict.*",
    ".*sync_dist=True.*",  # several processes: the scores are the same in each
    "LightningCLI's args parameter is intended.*",
    ".*could not find the monitored key.*",  # a run that ends before its first validation
    ".*across ranks is zero.*",  # a run without validation
    ".*is_gradient_checkpointing.*",
    ".*isinstance\\(treespec, LeafSpec\\).*",
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*AMP with fp16 is not supported on CPU.*",  # an error here
)
_RANK = re.compile(r"^\[rank: \d+\] ")
#: why a run ended before its time: the one thing that Lightning's log tells and this project doesn't
_NEWS = (
    "Monitored metric",
    "Metric ",
    "Time limit reached",
    "Received SIGTERM",
    "Detected KeyboardInterrupt",
)


def hide_usual_messages() -> None:
    """Installs the filters."""
    silence_writer_threads()
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_has_news)
    for message in _WARNINGS:
        warnings.filterwarnings("ignore", message=message)


def _has_news(record: logging.LogRecord) -> bool:
    if record.levelno > logging.INFO:
        SCREEN.clear()
        return True
    message = _RANK.sub("", record.getMessage())
    if message.startswith(_NEWS):
        say(message)  # above the line of the progress, not beside it
    return False
