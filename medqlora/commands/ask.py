"""`medqlora ask`: one answer in the terminal, or a prompt to ask one question after another."""

import argparse
import contextlib
import json
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

from medqlora.commands.arguments import Parser
from medqlora.commands.registry import Command
from medqlora.errors import InputError
from medqlora.inference import safe_answer
from medqlora.records import Record
from medqlora.safety import NOTE, check_note, screen
from medqlora.utils.interrupts import Interrupted

COMMAND = Command("ask", "one question in the terminal, or one after another", also=("chat",), rank=50)

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_LOOP_HELP = """Type a question. Also:
  /context FILE|TEXT   what the next questions are about; /context alone forgets it
  /history             what was asked and answered
  /quit                or Ctrl-D: the end; nothing is kept"""


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    made = Parser(
        "ask",
        "Answers a question with a trained adapter: the decision, how sure it is, and why. Without a\n"
        "question it asks for one after another. Not medical advice.",
    )
    made.add_argument("question", nargs="?", help="the question, in quotes")
    made.add_argument("--context", metavar="FILE|TEXT", help="what to answer it from, such as an abstract")
    made.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="TEXT",
        help="a possible answer, for multiple choice; give it twice or more",
    )
    made.add_argument(
        "--adapter", metavar="DIR", help="the adapter/ folder of a run (default: the one that finished last)"
    )
    made.add_argument(
        "--logs",
        metavar="DIR",
        default="lightning_logs",
        help="where runs are looked for (default: %(default)s)",
    )
    made.add_argument(
        "--base", help="the base's name or folder, where it isn't what the adapter's record says"
    )
    made.add_argument(
        "--backend", choices=("Unsloth", "Transformers", "TinyLlama"), help="what to load the base with"
    )
    made.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to run")
    made.add_argument(
        "--max_new_tokens", type=int, default=96, help="where the rationale is cut (default: %(default)s)"
    )
    made.add_argument("--note", default=NOTE, help="another wording of what every answer ends with")
    made.add_argument("--json", action="store_true", help="print the answer as a line of JSON")
    return made


def say(line: str) -> None:
    """Prints at once. Not `console.say`: that loads Lightning, which Unsloth has to come before."""
    print(line, flush=True)


def run(command: str, words: list[str]) -> int:
    """Raises InputError for wrong options, an adapter that isn't there, or a base that can't be had."""
    options = parser().parse_args(words)
    check_note(options.note, "--note")
    if options.max_new_tokens < 1:
        raise InputError(f"--max_new_tokens is {options.max_new_tokens}: it has to be at least 1")
    if options.question is not None and not options.question.strip():
        raise InputError("the question is empty: write it in quotes after `ask`")
    if len(options.option) == 1:
        raise InputError(f"--option {options.option[0]!r}: one alone is no choice: give two or more")
    if options.question is not None:
        # before anything is loaded: help must not wait for a model, nor depend on one
        reply = screen(options.question)
        if reply is not None:
            _show(safe_answer(_record(options, options.question, None), reply, options.note), options)
            return 0
    elif sys.stdin is None:
        raise InputError(
            "the question is missing, and there is no input to read one from: write it after `ask`"
        )
    context = None if options.context is None else context_of(options.context)
    asker = _asker(options)
    if options.question is None:
        return _loop(asker, options, context)
    _answer(asker, _record(options, options.question, context), options)
    return 0


def _asker(options: argparse.Namespace) -> Any:
    from medqlora.artifacts.runs import newest_adapter
    from medqlora.models.adapter_source import find_adapter
    from medqlora.models.adapters import base_remark, read_adapter

    folder, remark = options.adapter, None
    if folder is None:
        found = newest_adapter(Path(options.logs))
        if found is None:
            raise InputError(
                f"--adapter: {options.logs} holds no finished run: train one with `medqlora fit`, or name an adapter's "
                "folder"
            )
        folder = str(found)
    else:
        folder, remark = find_adapter(folder, "--adapter")
    import torch

    cuda = torch.cuda.is_available()
    backend = options.backend or read_adapter(folder, "--adapter").get("backend")
    if backend == "Unsloth" and options.backend is None and (not cuda or options.device == "cpu"):
        backend = "Transformers"  # the same weights, on a CPU
    if backend == "Unsloth":
        from medqlora.models.unsloth import import_unsloth

        import_unsloth()
    from medqlora.inference.predictor import Predictor

    if options.device == "cuda" and not cuda:
        raise InputError("--device cuda: torch finds no CUDA GPU here: use cpu")
    device = torch.device("cuda" if cuda and options.device != "cpu" else "cpu")
    if not options.json:
        say(f"Asking the adapter {folder}")
    asker = Predictor(
        folder,
        base=options.base,
        backend=backend,
        device=device,
        max_new_tokens=options.max_new_tokens,
    )
    for line in filter(None, (remark, base_remark(folder, asker.backend.base), *asker.backend.remarks())):
        print(line, file=sys.stderr if options.json else sys.stdout, flush=True)
    return asker


def _record(options: argparse.Namespace, question: str, context: str | None, labels: Any = ()) -> Record:
    choices = dict(zip(_LETTERS, options.option, strict=False))
    return Record(
        id="question",
        question=question,
        contexts=() if context is None else (context,),
        options=choices,
        labels=tuple(choices) or tuple(labels),
    )


def _answer(asker: Any, record: Record, options: argparse.Namespace) -> Any:
    for text in (record.question, *record.contexts, *record.options.values()):
        if any("\ud800" <= letter <= "\udfff" for letter in text):  # how Python keeps bytes that are no UTF-8
            raise InputError(f"{text[:80]!r}: not a text in UTF-8: write it as one")
    labels = record.labels or asker.labels
    answer = asker.answer(
        Record(record.id, record.question, record.contexts, options=record.options, labels=labels),
        options.note,
    )
    _show(answer, options)
    if not record.contexts and asker.wants_context and not options.json:
        say("(It learned to answer from a context, and was given none: be the more careful. See --context.)")
    return answer


def _show(answer: Any, options: argparse.Namespace) -> None:
    if options.json:
        say(json.dumps(answer.to_json(), ensure_ascii=False, allow_nan=False))
    else:
        say(answer.shown(min(100, shutil.get_terminal_size().columns)))


def _loop(asker: Any, options: argparse.Namespace, context: str | None) -> int:
    """Reads questions until the input ends; a line that is wrong is answered and the loop goes on."""
    if sys.stdin.isatty():
        with contextlib.suppress(ImportError):  # Windows has none
            import readline  # noqa: F401  # arrow keys and this session's lines; nothing is written to disk
        say(_LOOP_HELP)
    elif hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(errors="surrogateescape")  # `_answer` tells of a line that is no UTF-8
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
                for asked, said in history:
                    say(f"{said:<12}{asked}")
            elif word == "/context":
                context = context_of(rest.strip()) if rest.strip() else None
                say("No context." if context is None else f"Context of {len(context.split())} words.")
            elif word.startswith("/"):
                say(_LOOP_HELP)
            else:
                record = _record(options, line, context)
                reply = screen(line)
                if reply is not None:
                    answer = safe_answer(record, reply, options.note)
                    _show(answer, options)
                else:
                    answer = _answer(asker, record, options)
                history.append((line, str(answer.decision or answer.kind)))
        except InputError as error:
            say(f"medqlora: error: {error}")


def context_of(given: str) -> str:
    """The text of `--context`: a file's where there is one of that name, else the words themselves.

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
