"""The options by which `merge` and `export` compare what they wrote with the live model."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from medqlora.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from medqlora.records import Record


def add_verification(parser: argparse.ArgumentParser) -> None:
    """Adds --verify, --questions, --tolerance and --device."""
    parser.add_argument(
        "--verify",
        choices=("true", "false"),
        default="true",
        help="compare with the live model (default: %(default)s)",
    )
    parser.add_argument(
        "--questions", metavar="FILE", help="verify on these questions instead of the validation set's"
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        metavar="NATS",
        help="largest accepted difference of a label's log-probability (default: 0.02 for 16 and 32 bits, 0.1 for 8, "
        "0.5 for 4)",
    )
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="device of the live model"
    )


def check_verification(options: argparse.Namespace) -> None:
    """Raises InputError for values that contradict each other, and for files and folders that are missing."""
    if options.tolerance is not None and not options.tolerance >= 0:
        raise InputError(f"--tolerance {options.tolerance}: it has to be at least 0")
    if options.verify == "false" and options.questions:
        raise InputError("--questions: with --verify false there is nothing to verify: leave one out")
    if options.questions and not Path(options.questions).expanduser().is_file():
        raise InputError(f"--questions: there is no file '{options.questions}': name one")
    if not Path(options.adapter).expanduser().exists() and options.adapter.startswith((".", "/", "~")):
        raise InputError(
            f"--adapter: there is no folder '{options.adapter}': name an adapter's, or its run's"
        )


def questions_of(
    options: argparse.Namespace, record: "Mapping[str, object]", adapter: Path
) -> "list[Record]":
    """The questions to verify on; none with --verify false.

    Args:
        options: as parsed.
        record: the adapter's own.
        adapter: its folder.

    Raises:
        InputError: there are none, or they can't be read.
    """
    from medqlora.artifacts.merge.questions import file_questions, validation_questions

    if options.verify == "false":
        return []
    if options.questions:
        return file_questions(options.questions)
    return validation_questions(record, str(adapter))
