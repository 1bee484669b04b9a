"""An answers file of an earlier run: its complete lines are checked, a line that was cut off is removed."""

import json
from collections.abc import Sequence
from pathlib import Path

from medqlora.errors import InputError
from medqlora.records import Record

#: the fault and the fix of a file that holds something else
NO_ANSWER = "no answer of `medqlora predict`: name another --answers.path"


def check_writable(path: Path) -> None:
    """Checks that a regular file can be written at `path`, and leaves none that was not there.

    Raises:
        InputError: it can't.
    """
    if path.exists() and not path.is_file():  # a device may never end, a pipe never begin
        raise InputError(f"--answers.path: {path} is no file: name one")
    existed = path.exists()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a"):
            pass
        if not existed:
            path.unlink()
    except OSError as error:
        raise InputError(
            f"--answers.path: {path} can't be written ({error.strerror}): name another"
        ) from error


def answered_lines(path: Path, questions: Sequence[Record], by: str) -> int:
    """The number of complete lines; removes a line that was cut off at the end.

    Args:
        path: the file; may be missing.
        questions: all questions of the run, in their order.
        by: identifies the model that answers.

    Raises:
        InputError: the file holds something else, or answers to other questions or by another model.
    """
    if not path.exists():
        return 0
    with path.open(encoding="utf-8", errors="surrogateescape") as stream:
        text = stream.read()
    complete, end, rest = text.rpartition("\n")
    lines = complete.split("\n") if end else []
    for number, line in enumerate(lines, 1):
        expected = questions[number - 1].id if number <= len(questions) else None
        _check_line(line, f"{path}:{number}", expected, by)
    if rest and not lines and not (questions and _may_begin_an_answer(rest, questions[0])):
        raise InputError(f"{path}:1: {NO_ANSWER}")
    if rest:
        with path.open("r+b") as raw:
            raw.truncate(len(f"{complete}{end}".encode("utf-8", "surrogateescape")))
    return len(lines)


def _check_line(line: str, where: str, expected: str | None, by: str) -> None:
    try:
        answer = json.loads(line)
        question, model = answer["id"], answer["by"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{where}: {NO_ANSWER}") from error
    check_answer(question, model, where, expected, by)


def check_answer(question: object, model: object, where: str, expected: str | None, by: str) -> None:
    """Raises InputError for an answer to another question than `expected`, or by another model than `by`."""
    if question != expected or model != by:
        what = "by another adapter, base or prompt" if question == expected else "to another question"
        raise InputError(f"{where}: an answer {what}: name another --answers.path, or remove the file")


def _may_begin_an_answer(cut: str, question: Record) -> bool:
    """Whether a line that was cut off is the beginning of an answer to the question; another file is not ours."""
    begins = (
        json.dumps({"id": question.id, "question": question.question}, ensure_ascii=False)[:-1] + ', "kind": '
    )
    found, expected = cut.encode("utf-8", "surrogateescape"), begins.encode("utf-8")
    size = min(len(found), len(expected))
    return found[:size] == expected[:size]
