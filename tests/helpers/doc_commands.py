"""The `medqlora` lines in the documentation's code blocks, and whether the real parsers take them."""

import argparse
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import pytest

from medqlora.commands import arguments
from medqlora.commands.registry import commands
from medqlora.config.check import check_options
from medqlora.config.command_options import own_options
from medqlora.config.schema import class_options, known_classes
from medqlora.config.shipped import config_path, shipped_configs
from medqlora.config.words import CommandLine

ROOT = Path(__file__).parents[2]
#: run Lightning's verbs with the options of the verb behind the arrow
VERBS = {"fit": "fit", "full": "fit", "validate": "validate", "test": "test", "predict": "predict"}
_FENCE = re.compile(r"^( {0,3})```(\w*)")


class Line(NamedTuple):
    """A command as a page has it: "page:line" and its words after `medqlora`."""

    where: str
    words: tuple[str, ...]


class ParsedError(Exception):
    """Raised once a command's words are parsed, in place of its work."""

    def __init__(self, parser: Any, rest: list[str]) -> None:
        self.parser, self.rest = parser, rest


def blocks(page: Path) -> Iterator[tuple[int, str, list[str]]]:
    """(line, language, lines) of each code block of a page, fenced or indented."""
    fence, language, lines, start = "", "", [], 0
    for number, line in enumerate(page.read_text("utf-8").splitlines(), 1):
        found = _FENCE.match(line)
        if fence:
            if line.strip() == "```":
                yield start, language, lines
                fence, lines = "", []
            else:
                lines.append(line)
        elif found:
            fence, language, start, lines = "```", found[2], number + 1, []
        elif line.startswith("    "):
            start = start if lines else number
            lines.append(line[4:])
        elif lines:
            yield start, "", lines
            lines = []
    if lines:
        yield start, language, lines


def command_lines(page: Path) -> Iterator[Line]:
    """The `medqlora` commands in a page's blocks; in a block of output those after a `$` alone."""
    for start, language, lines in blocks(page):
        number = start
        while number < start + len(lines):
            first, text = number, lines[number - start]
            while text.endswith("\\") and number + 1 < start + len(lines):
                number += 1
                text = text[:-1] + lines[number - start]
            number += 1
            if language in ("text", "python", "yaml", "json") and not text.startswith("$ "):
                continue
            for part in re.split(r"\s(?:&&|\||;)\s|\s>\s", text.removeprefix("$ ")):
                try:
                    words = shlex.split(part, comments=True)
                except ValueError:
                    continue  # the beginning of a text in quotes
                while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
                    words.pop(0)
                words = (
                    words[1:] if words[:1] in (["uvx"], ["!medqlora"]) and "medqlora" in words[1:2] else words
                )
                if words[:1] in (["medqlora"], ["!medqlora"]):
                    yield Line(f"{page.relative_to(ROOT)}:{first}", tuple(words[1:]))


def check(line: Line, patch: pytest.MonkeyPatch) -> None:
    """Has the command's own parser read its words; nothing is run.

    Raises:
        InputError: a command, an option or a value that it doesn't take.
        AssertionError: there is no such command.
    """
    name, words = (line.words or ("--help",))[0], list(line.words[1:])
    if name.startswith("-"):
        assert name in ("--help", "-h", "--version", "-V"), f"{line.where}: {name}"
        return
    assert name in commands(), f"{line.where}: there is no command {name}"
    if "--help" in words:
        return
    if name in VERBS and "--gguf" not in words:
        check_verb(VERBS[name], words)
        return
    if [name, *words[:1]] == ["library", "compare"]:  # takes the options of `test`
        check_verb("test", words[1:])
        return

    def parsed(parser: Any, given: Any = None, namespace: Any = None) -> NoReturn:
        namespace, rest = known(parser, given, namespace)
        if rest:
            parser.error(f"unrecognized arguments: {' '.join(rest)}")
        raise ParsedError(parser, [])

    def partly(parser: Any, given: Any = None, namespace: Any = None) -> NoReturn:
        _, rest = known(parser, given, namespace)
        raise ParsedError(parser, rest)

    known = argparse.ArgumentParser.parse_known_args
    with patch.context() as inner:
        inner.setattr(arguments.Parser, "parse_args", parsed)
        inner.setattr(arguments.Parser, "parse_known_args", partly, raising=False)
        try:
            commands()[name].start(words)
        except ParsedError as done:
            rest = done.rest or arguments.own_and_rest(done.parser, words)[1]
            if rest and any(word.startswith("-") for word in rest):
                check_verb("fit", rest)


def check_verb(verb: str, words: list[str]) -> None:
    """Checks the options of one of Lightning's verbs; configurations that a reader writes are taken as they are."""
    given = CommandLine.parse(words)
    shipped = {
        name
        for name in given.configs
        if Path(config_path(name)).name.removesuffix(".yaml") in shipped_configs()
    }
    own = set(given.configs) - shipped or not given.configs
    rest = given.without("config", "c", *own_options(verb))  # the command takes its own off first
    if own:  # a class that only the reader's file names: its options are those of any class
        for option in rest.options:
            for key, kind in (("model.backend", "backend"), ("data.source", "source")):
                if any(other.name == key for other in given.options):
                    continue
                if option.name.startswith(f"{key}.") and any(
                    option.name.split(".")[2] in (class_options(kind, path, key) or {})
                    for path in known_classes(kind)
                ):
                    rest = rest.without(option.name)
    configs = [
        word for name in given.configs if name in shipped for word in ("--config", str(shipped_of(name)))
    ]
    configs = configs or ["--config", str(shipped_configs()["demo"])]
    values = [word for option in rest.options for word in option.typed]
    check_options(verb, [*configs, *values])


def shipped_of(name: str) -> Path:
    return shipped_configs()[Path(config_path(name)).name.removesuffix(".yaml")]
