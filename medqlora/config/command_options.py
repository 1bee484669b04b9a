"""Options of `fit`, `test` and `predict` that Lightning's parser does not know: the command takes them off first."""

from collections.abc import Mapping
from typing import NamedTuple


class CommandOption(NamedTuple):
    """An option of a command.

    Attributes:
        name: without dashes.
        value: what it takes, for the help.
        help: what it does, in a sentence.
    """

    name: str
    value: str
    help: str


_LIBRARY = CommandOption(
    "library",
    "DIR",
    "a library (`medqlora library`) answers: a topic classifier sends each question to one of its adapters.",
)

#: command → its options, in the order of the help
COMMAND_OPTIONS: Mapping[str, tuple[CommandOption, ...]] = {
    "fit": (
        CommandOption(
            "folds",
            "all|0,3,7",
            "cross-validation: train these official folds into one folder cv_N, calibrate on their out-of-fold "
            "predictions, and write cv_report.html. --ckpt_path last (or the folder) goes on with an unfinished one.",
        ),
        CommandOption(
            "folds_at_once",
            "N",
            "folds that are trained side by side, each on a GPU of its own (default: 1).",
        ),
        CommandOption(
            "against",
            "DIR",
            "with --folds: another finished cross-validation, to compare with question by question.",
        ),
    ),
    "test": (
        CommandOption(
            "ensemble",
            "DIR DIR …",
            "test adapters (or the folder cv_N of a cross-validation) that answer together: the mean of their label "
            "log-probabilities, on one loaded base model. Each is also compared alone.",
        ),
        CommandOption(
            "against",
            "DIR …",
            "with --ensemble: further adapters on the same questions, as that of `medqlora combine`.",
        ),
        _LIBRARY,
    ),
    "predict": (_LIBRARY,),
}


def own_options(command: str) -> tuple[str, ...]:
    """The names of a command's own options."""
    return tuple(option.name for option in COMMAND_OPTIONS.get(command, ()))
