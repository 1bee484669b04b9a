"""`medqlora ask --library DIR`: the library's adapters, of which the question's topic chooses one."""

import argparse
import sys
from typing import TYPE_CHECKING

from medqlora.errors import InputError

if TYPE_CHECKING:
    from medqlora.inference.routed import RoutedPredictor


def check_library_options(options: argparse.Namespace) -> None:
    """Raises InputError for options that contradict --library, and for a library that isn't there."""
    for name in ("adapter", "index", "backend"):
        if getattr(options, name) is not None:
            raise InputError(
                f"--{name}: --library names the adapters, which answer from the question's own context: leave one out"
            )
    from medqlora.artifacts.library import Library

    Library.open(options.library)


def load_for_ask(options: argparse.Namespace) -> "RoutedPredictor":
    """Loads the library; see `load_library` for what it raises."""
    from medqlora.commands.library_use import load_library

    if not options.json:
        print(f"Library: {options.library}", flush=True)
    routed = load_library(
        options.library, base=options.base, device=options.device, max_new_tokens=options.max_new_tokens
    )
    for line in routed.remarks:
        print(line, file=sys.stderr if options.json else sys.stdout, flush=True)
    return routed
