"""`medqlora predict --library DIR`: answers a file of questions, each by the adapter that it is routed to."""

import hashlib
import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medqlora.artifacts.library import ROUTER, Library
from medqlora.commands.asking import decoding_of, limits_of
from medqlora.commands.library_use import load_library, one_value
from medqlora.commands.on_one_base import device_of, kept_words, new_run_folder, option_of
from medqlora.commands.places import check_places
from medqlora.commands.unsloth_first import import_unsloth_if_named
from medqlora.config.check import check_options
from medqlora.config.command_options import own_options
from medqlora.config.model import Decoding
from medqlora.config.words import CommandLine, with_config
from medqlora.errors import InputError
from medqlora.utils.console import say
from medqlora.utils.digests import file_digest
from medqlora.utils.locks import hold
from medqlora.utils.progress import phase

if TYPE_CHECKING:
    from medqlora.inference.several import PassLimits
    from medqlora.records import Record

#: questions that are answered, and then written, at once
_ROWS = 32


@dataclass(frozen=True)
class _Settings:
    """The options of the answers and the generation.

    Attributes:
        path: of the answers; None for a file of a new run's folder.
        note: text that every answer ends with.
        generate, max_new_tokens, device, decoding, limits: as of `SeveralAdapters.load`.
        progress: whether it is shown.
    """

    path: str | None
    note: str
    generate: bool
    max_new_tokens: int
    device: str
    decoding: Decoding
    limits: "PassLimits"
    progress: bool


def run(words: list[str]) -> int:
    """Answers the questions; a second run goes on after the last complete line.

    Raises:
        InputError: options, questions or the library are wrong, or the file holds other answers.
    """
    line = CommandLine.parse(with_config(words))
    library = Library.open(one_value(line, "library"))
    kept = kept_words(line, "predict")
    _check(kept)
    from medqlora.callbacks.answer_tables import growing_file
    from medqlora.callbacks.answers_file import check_writable

    questions, settings = _questions(kept, library)
    path = settings.path
    output = new_run_folder(kept).free_predictions() if path is None else Path(path).expanduser()
    try:
        release = hold(output)
    except BlockingIOError as error:
        raise InputError(
            f"--answers.path: another process is writing {output}: wait for it, or name another"
        ) from error
    try:
        check_writable(output)
        _write(library, questions, output, growing_file(output), settings)
    finally:
        release()
    return 0


def _check(words: list[str]) -> None:
    line = CommandLine.parse(words)
    for name in ("model.adapter", "ckpt_path"):
        if line.value(name) is not None:
            raise InputError(f"--{name}: --library names the weights: leave it out")
    if line.value("data.retrieval.index") is not None:
        raise InputError(
            "--data.retrieval.index: --library asks the questions with their own contexts: leave it out"
        )
    check_options("predict", words, own_options("predict"), files=True)
    check_places(["predict", *words])
    import_unsloth_if_named(["predict", *words])


def _questions(words: list[str], library: Library) -> "tuple[list[Record], _Settings]":
    """The questions, and the options of the answers and the generation."""
    from medqlora.commands.run import build
    from medqlora.data import read_questions
    from medqlora.data.stages import read_stages
    from medqlora.inference.loading import read_trained
    from medqlora.safety import check_note

    built = build(["predict", *words], with_trainer=False)
    note = str(option_of(built, "answers.note"))
    check_note(note, "--answers.note")
    data = built.datamodule
    labels = read_trained(library.folder(library.general), "--library").labels
    if data.questions is not None:
        questions = read_questions(data.questions, "--data.questions", labels)
    else:
        questions = read_stages(data.source, ("test",), say).test
    if not questions:
        raise InputError("--data.questions: there is no question to answer: name a file")
    path = option_of(built, "answers.path")
    return questions, _Settings(
        None if path is None else str(path),
        note,
        built.model.options.generate,
        built.model.options.max_new_tokens,
        device_of(words),
        decoding_of(built),
        limits_of(built),
        bool(option_of(built, "progress.refresh_rate")),
    )


def _write(
    library: Library,
    questions: "list[Record]",
    output: Path,
    lines: Path,
    settings: _Settings,
) -> None:
    """Answers what has no answer yet; each group is on the disk before the next begins."""
    from medqlora.callbacks.answer_tables import answered_rows, is_table, write_table
    from medqlora.callbacks.answers_file import answered_lines

    by = _answerer(library, settings)
    done = answered_lines(lines, questions, by)
    if is_table(output):
        done = done or answered_rows(output, questions, by)
    if done:
        held = lines if lines.exists() else output
        say(f"{held} holds {done} answers already: {len(questions) - done} questions are left")
    if done < len(questions):
        routed = load_library(
            str(library.path),
            device=settings.device,
            generate=settings.generate,
            max_new_tokens=settings.max_new_tokens,
            decoding=settings.decoding,
            limits=settings.limits,
        )
        lines.parent.mkdir(parents=True, exist_ok=True)
        with (
            phase("Answers", len(questions), "questions", shown=settings.progress) as bar,
            lines.open("a", encoding="utf-8", newline="\n") as stream,
        ):
            bar.begin_at(done)
            # a group is answered whole also where some of it is written: another batch would round otherwise
            for start in range(done - done % _ROWS, len(questions), _ROWS):
                answered = routed.answers(questions[start : start + _ROWS], settings.note)
                for answer, name in answered[max(0, done - start) :]:
                    line = {**answer.to_json(), "adapter": name, "by": by}
                    stream.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
                stream.flush()
                os.fsync(stream.fileno())
                bar.update(min(start + _ROWS, len(questions)))
    counts = _answered_by(lines)
    if is_table(output) and lines.exists():
        write_table(lines, output)
    shown = ", ".join(f"{counts[name]} by {name}" for name in library.names if name in counts)
    noun = "answer" if len(questions) == 1 else "answers"
    say(f"{len(questions)} {noun}{f' ({shown})' if shown else ''}: {output}\n{settings.note}")


def _answered_by(lines: Path) -> Counter[str]:
    """Adapter → number of its answers in a file, those of earlier runs too; nothing where there is no file."""
    if not lines.exists():
        return Counter()
    with lines.open(encoding="utf-8") as stream:
        return Counter(str(json.loads(line)["adapter"]) for line in stream)


def _answerer(library: Library, settings: _Settings) -> str:
    """Identifies what decides an answer: all adapters, the classifier, and the limits."""
    router = library.path / ROUTER
    parts = [
        [
            (entry.name, entry.sha256, entry.prompt_sha256, entry.base_identity)
            for entry in library.entries.values()
        ],
        library.general,
        file_digest(router)["sha256"] if router.is_file() else None,
        settings.max_new_tokens if settings.generate else 0,
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
