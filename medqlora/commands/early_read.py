"""Reads a question set of the user's before anything heavy is imported, so that a wrong row is told at once."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medqlora.config.origin import GivenSource
from medqlora.config.words import CommandLine
from medqlora.data.wording import no_records

if TYPE_CHECKING:
    from medqlora.data.sources.recognised import Recognised

#: options of `JSONLines` whose values are plain texts, however they were given
_PLAIN = {"train", "dev", "test", "on_bad_record", "encoding", "sheet"}
#: read without another library
_LIGHT = {".csv", ".tsv", ".tab", ".psv", ".jsonl", ".ndjson", ".json"}
#: bytes that are read twice without a noticeable wait; a larger file is read once, later
_LARGEST = 4 * 1024 * 1024


def read_early(source: GivenSource) -> None:
    """Reads small text files of `JSONLines`, and keeps nothing. Other sources are left for later.

    Raises:
        InputError: a row or a file can't be used, as when the run reads it.
    """
    if source.class_path != "medqlora.data.JSONLines":
        return
    given = {name: value for name, value in source.given.items() if value is not None}
    if not set(given) <= _PLAIN or not all(isinstance(value, str) for value in given.values()):
        return
    paths = [Path(str(given[name])).expanduser() for name in ("train", "dev", "test") if name in given]
    if not paths or not all(path.is_file() and path.suffix.lower() in _LIGHT for path in paths):
        return
    if sum(path.stat().st_size for path in paths) > _LARGEST:
        return
    from medqlora.data.sources.jsonlines import JSONLines

    early = JSONLines(**given)  # type: ignore[arg-type]
    early.checks_test_questions = False  # an option may allow them
    early.read()


def check_test_set(source: GivenSource) -> None:
    """Refuses to test on files of the user's without a test set, before anything heavy is imported.

    Raises:
        InputError: `JSONLines` is given no file of test questions.
    """
    if source.class_path == "medqlora.data.JSONLines" and source.given.get("test") is None:
        raise no_records("JSONLines", "test")


def read_found_early(found: "Recognised", test: str | None, words: Sequence[str]) -> None:
    """As `read_early`, for data that a command's argument names.

    Args:
        found: the source of the argument.
        test: the file of test questions, where another argument names one.
        words: options of `fit` that follow.

    Raises:
        InputError: as `read_early`.
    """
    given: dict[str, object] = dict(found.init_args)
    if test is not None:
        given["test"] = test
    for option in CommandLine.parse(words).options:
        prefix, _, name = option.name.removesuffix("+").partition("data.source.")
        if not prefix and name:
            given[name.removeprefix("init_args.")] = option.value
        elif option.name.startswith(("data.source", "data.stages")):
            return
    read_early(GivenSource(found.class_path, given))
