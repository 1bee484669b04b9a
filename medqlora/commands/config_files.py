"""Which configurations a command's words name; the parser is told the same words later."""

import re
from collections.abc import Sequence

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
