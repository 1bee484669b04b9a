"""`medqlora ask`: answers one question in the terminal, or one after another."""

import argparse
import contextlib
import json
import shutil
import signal
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from medqlora.commands.arguments import Parser
from medqlora.commands.ask_library import check_library_options, load_for_ask
from medqlora.commands.ask_sources import add_index_options, answer_from_index, check_index_options
from medqlora.commands.registry import Command
from medqlora.config.backends import BACKEND_NAMES
from medqlora.data.images import image_file
from medqlora.errors import InputError
from medqlora.inference import Answer, AnswerPart, safe_answer
from medqlora.inference.streaming import LONG_WORD
from medqlora.records import Record
from medqlora.safety import NOTE, check_note, screen
from medqlora.utils.interrupts import Interrupted
from medqlora.utils.terminal import printable

if TYPE_CHECKING:
    from typing_extensions import TypeIs

    from medqlora.inference.predictor import Predictor
    from medqlora.inference.routed import RoutedPredictor

COMMAND = Command("ask", "one question in the terminal, or one after another", also=("chat",), rank=50)

_LOOP_HELP = """Type a question. Also:
  /context FILE|TEXT   the context of the next questions; /context alone removes it
  /image FILE          the image of the next questions; /image alone removes it
  /history             the questions and decisions so far
  /quit                or Ctrl-D: ends; nothing is kept"""


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    made = Parser(
        "ask",
        "Answers a question with a trained adapter: the decision, its confidence, and the rationale. Without a\n"
        "question it reads one after another. Not medical advice.",
    )
    made.add_argument("question", nargs="?", help="the question, in quotes")
    made.add_argument("--context", metavar="FILE|TEXT", help="the text to answer from, such as an abstract")
    made.add_argument(
        "--image",
        action="append",
        default=[],
        metavar="FILE",
        help="an image that the question is about (PNG, JPEG, TIFF, WebP, BMP, GIF or DICOM); several in order",
    )
    made.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="TEXT",
        help="a possible answer, for multiple choice; give it twice or more",
    )
    made.add_argument(
        "--adapter",
        metavar="DIR",
        help="the adapter/ folder of a run, or a merged model's (default: that of the run that finished last)",
    )
    made.add_argument(
        "--logs",
        metavar="DIR",
        default="lightning_logs",
        help="the folder of the runs (default: %(default)s)",
    )
    made.add_argument(
        "--library", metavar="DIR", help="a library: the adapter of the question's topic answers it"
    )
    made.add_argument(
        "--base", help="the base model's name or folder, where it differs from the adapter's record"
    )
    made.add_argument(
        "--backend",
        choices=BACKEND_NAMES,
        help="the backend that loads the base model",
    )
    made.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="the device to run on"
    )
    made.add_argument(
        "--max_new_tokens",
        type=int,
        default=96,
        help="length limit of the rationale, in tokens (default: %(default)s)",
    )
    made.add_argument("--note", default=NOTE, help="another wording of the note at the end of every answer")
    add_index_options(made)
    made.add_argument("--json", action="store_true", help="print the answer as a line of JSON")
    return made


def say(line: str) -> None:
    """Prints at once. `console.say` would import Lightning before Unsloth, which has to come first."""
    print(line, flush=True)


def run(command: str, words: list[str]) -> int:
    """Raises InputError for wrong options, a missing adapter, or a base model that can't be loaded."""
    options = parser().parse_args(words)
    check_note(options.note, "--note")
    if options.max_new_tokens < 1:
        raise InputError(f"--max_new_tokens is {options.max_new_tokens}: it has to be at least 1")
    check_index_options(options)
    if options.library is not None:
        check_library_options(options)
    if options.question is not None and not options.question.strip():
        raise InputError("the question is empty: write it in quotes after `ask`")
    if len(options.option) == 1:
        raise InputError(f"--option {options.option[0]!r}: one alone is no choice: give two or more")
    if options.question is not None:
        # before anything is loaded: a fixed reply must not wait for a model, nor depend on one
        reply = screen(options.question)
        if reply is not None:
            _show(safe_answer(Record("question", options.question), reply, options.note), options)
            return 0
    elif sys.stdin is None:
        raise InputError(
            "the question is missing, and there is no input to read one from: write it after `ask`"
        )
    context = None if options.context is None else context_of(options.context)
    for image in options.image:  # before a model is loaded
        image_file(Path(image).expanduser(), "--image")
    if options.image and options.index is not None:
        raise InputError("--image: answers from an index are for text alone: leave out --image or --index")
    _check_adapter(options.adapter)
    predictor = _load(options)
    if options.question is None:
        return _loop(predictor, options, context)
    _answer(predictor, options.question, context, options)
    return 0


def _check_adapter(name: str | None) -> None:
    """Refuses a path that leads nowhere, before anything heavy is imported; `owner/name` may be on the Hub."""
    if name is None or Path(name).expanduser().exists():
        return
    if Path(name).is_absolute() or name.count("/") != 1 or Path(name).parent.is_dir():
        raise InputError(f"--adapter: there is no folder {name}: give the adapter/ folder of a finished run")


def _load(options: argparse.Namespace) -> "Predictor | RoutedPredictor":
    from medqlora.artifacts.runs import newest_adapter
    from medqlora.models.adapters import find_adapter, read_merged

    if options.library is not None:
        return load_for_ask(options)
    merged = options.adapter is not None and bool(read_merged(options.adapter, "--adapter"))
    remark = None
    if options.adapter is None:
        newest = newest_adapter(Path(options.logs))
        if newest is None:
            raise InputError(
                f"--adapter: {options.logs} holds no finished run: train one with `medqlora fit`, or name an adapter's "
                "folder"
            )
        folder = str(newest)
    elif merged:
        folder = options.adapter
    else:
        folder, remark = find_adapter(options.adapter, "--adapter")
    from medqlora.inference.loading import pick_device
    from medqlora.inference.predictor import Predictor
    from medqlora.models.adapters import read_adapter

    if not merged:
        read_adapter(folder, "--adapter")  # before a line is printed
    device = pick_device(options.device)
    if not options.json:
        say(f"Adapter: {folder}")
    predictor = Predictor.load(
        folder,
        base=options.base,
        backend=options.backend,
        device=device,
        max_new_tokens=options.max_new_tokens,
        option="--adapter",
    )
    for line in (remark, *predictor.remarks):
        if line:
            print(line, file=sys.stderr if options.json else sys.stdout, flush=True)
    return predictor


def _answer(
    predictor: "Predictor | RoutedPredictor", question: str, context: str | None, options: argparse.Namespace
) -> Answer:
    if options.index is not None and not _is_routed(predictor):
        return answer_from_index(predictor, question, context, options)
    asked = (question, context, options.option, options.note, options.image)
    if sys.stdout is not None and sys.stdout.isatty() and not options.json:
        answer = stream(predictor.answer_stream(*asked), _columns())
    else:
        answer = predictor.answer(*asked)
        _show(answer, options, predictor.route.name if _is_routed(predictor) else None)
    if _is_routed(predictor) and answer.reply is None and not options.json:
        say(predictor.said())
    if context is None and predictor.wants_context and answer.reply is None and not options.json:
        how = "Type /context FILE|TEXT first." if options.question is None else "Pass --context."
        say(
            "Warning: this adapter was trained with a context, and none was given; answers are less reliable. "
            + how
        )
    return answer


def _is_routed(predictor: "Predictor | RoutedPredictor") -> "TypeIs[RoutedPredictor]":
    """Whether a library answers; its class is not imported where none does."""
    return hasattr(predictor, "route")


def _show(answer: Answer, options: argparse.Namespace, adapter: str | None = None) -> None:
    if options.json:
        plain = answer.to_json() if adapter is None else {**answer.to_json(), "adapter": adapter}
        say(json.dumps(plain, ensure_ascii=False, allow_nan=False))
    else:
        say(answer.shown(_columns()))


def _columns() -> int:
    return min(100, shutil.get_terminal_size().columns)


def stream(parts: Iterable[AnswerPart], width: int) -> Answer:
    """Prints an answer while it is generated; what stands there in the end is what `Answer.shown` gives.

    Where the complete text contradicts what was printed of the decision, the complete answer follows.
    """
    printed = ""
    first: Answer | None = None
    for part in parts:
        first = first or replace(part.answer, rationale="")
        last = part.answer
        shown = replace(first, rationale=last.rationale).shown(width, complete=False)
        # a word that may go on waits until its line is certain: a word longer than a line begins on the one before
        word = printable(last.rationale.split(" ")[-1])
        waits = not part.complete and LONG_WORD < len(word) <= width
        if shown.startswith(printed) and not waits:
            print(shown[len(printed) :], end="", flush=True)
            printed = shown
    assert first is not None
    if replace(last, rationale="") != first or not last.shown(width).startswith(printed):
        say(f"\n\nThe complete text changes this answer:\n\n{last.shown(width)}")
    else:
        say(last.shown(width)[len(printed) :])
    return last


def _loop(predictor: "Predictor | RoutedPredictor", options: argparse.Namespace, context: str | None) -> int:
    """Answers one question per line until the input ends; a wrong line is reported, and the loop goes on."""
    if sys.stdin.isatty():
        with contextlib.suppress(ImportError):  # Windows has none
            import readline  # noqa: F401  # arrow keys and this session's lines; nothing is written to disk
        say(_LOOP_HELP)
    elif hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(errors="surrogateescape")  # `answer` reports a line that is no UTF-8
    history: list[tuple[str, str]] = []
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "").strip()
        except (EOFError, KeyboardInterrupt, Interrupted) as end:
            if isinstance(end, Interrupted) and end.signal is not signal.SIGINT:
                raise
            say("")
            return 0
        word, _, rest = line.partition(" ")
        try:
            if not line:
                continue
            if word == "/quit":
                return 0
            if word == "/history":
                for question, decision in history:
                    say(f"{decision:<12}{question}")
            elif word == "/context":
                context = context_of(rest.strip()) if rest.strip() else None
                say("No context." if context is None else f"Context of {len(context.split())} words.")
            elif word == "/image":
                options.image = [rest.strip()] if rest.strip() else []
                for image in options.image:
                    image_file(Path(image).expanduser(), "/image")
            elif word.startswith("/"):
                say(_LOOP_HELP)
            else:
                answer = _answer(predictor, line, context, options)
                history.append((line, str(answer.decision or answer.kind)))
        except InputError as error:
            say(f"medqlora: error: {error}")


def context_of(given: str) -> str:
    """The text of `--context`: the content of a file of that name, or else the value itself.

    Raises:
        InputError: the file is empty, or can't be read as UTF-8 text.
    """
    try:
        path = Path(given).expanduser()
        is_file = path.is_file()
    except (OSError, ValueError):  # too long for a name: it is a text
        is_file = False
    if not is_file:
        looks_like_a_file = (
            len(given) < 200 and " " not in given.strip() and Path(given).suffix in (".txt", ".md")
        )
        if looks_like_a_file or not given.strip():
            raise InputError(f"--context {given!r}: there is no such file: give a file, or the text itself")
        return given
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--context {given}: not a text in UTF-8 ({error}): save it as one") from error
    if not text.strip():
        raise InputError(f"--context {given}: the file is empty: give one with text")
    return text
