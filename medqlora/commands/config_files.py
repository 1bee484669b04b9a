"""Which configurations a command's words name; the parser is told the same words later."""

import difflib
import os
import re
from collections.abc import Sequence
from pathlib import Path

from medqlora.errors import InputError

CONFIG_OPTIONS = ("--config", "-c")


def config_files(words: Sequence[str]) -> list[str]:
    """The files named by `--config FILE` or `--config=FILE`, in order: the last wins."""
    names = []
    for place, word in enumerate(words):
        if match := re.fullmatch(r"(?:--config|-c)=(.+)", word):
            names.append(match[1])
        elif word in CONFIG_OPTIONS and place + 1 < len(words):
            names.append(words[place + 1])
    return names


def with_config(words: list[str]) -> list[str]:
    """`words` with the demo's configuration in front when none is named.

    Raises:
        InputError: a named configuration doesn't exist, or `--config` names none.
    """
    if words and words[-1] in CONFIG_OPTIONS:
        raise InputError(f"{words[-1]}: the file is missing: name one, like configs/demo.yaml")
    names = config_files(words)
    for name in names:
        if not Path(name).expanduser().is_file():
            near = difflib.get_close_matches(name, [str(path) for path in Path("configs").glob("*.yaml")], 1)
            hint = f"did you mean {near[0]}?" if near else "the ones that come along are in configs/"
            raise InputError(f"--config: there is no file '{name}': {hint}")
    if names or "-h" in words or "--help" in words:
        return words
    demo = Path(__file__).resolve().parents[2] / "configs" / "demo.yaml"
    if not demo.is_file():
        return words
    shown = os.path.relpath(demo)
    print(f"No --config given: running the demo, {shown}", flush=True)
    return ["--config", shown, *words]
