"""`medqlora init`: one commented configuration for the data and the machine at hand."""

import argparse
import contextlib
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from medqlora.commands.arguments import Parser, own_and_rest
from medqlora.commands.early_read import read_found_early
from medqlora.commands.registry import Command
from medqlora.errors import InputError
from medqlora.utils.terminal import printable

if TYPE_CHECKING:
    from medqlora.commands.first_config import Draft
    from medqlora.commands.plan_report import Report
    from medqlora.commands.read_sets import ReadSets
    from medqlora.data.sources.recognised import Recognised

COMMAND = Command(
    "init", "a look at data and machine, and a first configuration for them", also=("new",), rank=4
)

OUT = "medqlora.yaml"

_EXAMPLES = """examples:
  medqlora init questions.csv                 asks at most five questions on a terminal, and none elsewhere
  medqlora init pubmedqa --gpu t4 --yes       for another machine, without a question
  medqlora init folder --base unsloth/llama-3-8b-bnb-4bit --epochs 5 --out ward.yaml

Then: medqlora fit --config medqlora.yaml. Options of `medqlora fit` may follow (--data.source.labels "[pos, neg]"), and
are written into the file.
"""


def parser() -> argparse.ArgumentParser:
    """The command's own options; those of `fit` may follow."""
    made = Parser(
        "init",
        "Looks at the data and at this machine, and writes one commented YAML that `medqlora fit` takes, with the\n"
        "base model suggested for the memory at hand, and the plan's memory and time.",
        _EXAMPLES,
    )
    made.add_argument("source", metavar="FILE|FOLDER|pubmedqa|demo", help="the data")
    made.add_argument(
        "--base", metavar="NAME", help="base model: a Hub name, a folder, or demo (default: by memory)"
    )
    made.add_argument("--test", metavar="FILE", help="a test file, for data without one (default: none)")
    made.add_argument("--train_samples", type=int, metavar="N", help="train on N questions (default: all)")
    made.add_argument("--epochs", type=int, metavar="N", help="passes over them (default: 3, demo's base: 2)")
    made.add_argument("--out", metavar="FILE", help=f"the configuration to write (default: {OUT})")
    made.add_argument(
        "--gpu", metavar="NAME", help="set up for this GPU, as t4 or rtx4090 (default: this machine's)"
    )
    made.add_argument("--gpu-memory", metavar="SIZE", help="set up for this much GPU memory, as 8GiB or 24GB")
    made.add_argument(
        "--yes", action="store_true", help="ask nothing: take the defaults of what no option gives"
    )
    made.add_argument("--force", action="store_true", help="replace the file of --out")
    return made


def run(command: str, words: list[str]) -> int:
    """Raises InputError for wrong options, data that can't be read, or a file that is there already."""
    made = parser()
    own, rest = own_and_rest(made, words)
    options = made.parse_args(own)
    _check(options, rest)
    from medqlora.data.sources.recognised import recognised

    found = recognised(options.source, "init")
    read_found_early(found, options.test, rest)
    asker = Asker(
        asks=not options.yes and sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()
    )
    from medqlora.commands.first_config import Draft, suggested_bases
    from medqlora.commands.machine import this_machine
    from medqlora.commands.plan import size_in_bytes

    memory = None if options.gpu_memory is None else size_in_bytes(options.gpu_memory)
    machine = this_machine(options.gpu, memory)
    print(machine.line(), flush=True)
    bases = suggested_bases(machine)
    base = options.base or asker.ask(f"Base model? ({bases[0][1]})", bases[0][0])
    _add_test(found, options.test, asker)
    draft = Draft(found, base, machine, train_samples=options.train_samples, more=rest)
    draft, read = _look(draft)
    draft = _size(draft, read, options, asker)
    out = _out(options.out or asker.ask("Write the configuration to?", OUT), options.force)
    tried = [name for name, _ in bases] if options.base is None and base == bases[0][0] else [base]
    draft, report = _fitting(draft, tried)
    _write(out, draft, read, report, dict(bases).get(draft.base, "as you said"))
    return 0


class Asker:
    """Asks on a terminal; takes the default elsewhere.

    Args:
        asks: whether anybody is there to answer.
    """

    def __init__(self, asks: bool) -> None:
        self.asks = asks

    def ask(self, question: str, default: str, check: Callable[[str], str] = str) -> str:
        """The answer; Enter, and the end of the input, take the default."""
        while self.asks:
            shown = f" [{default}]" if default else " [none]"
            try:
                answer = input(f"{question}{shown} ").strip()
                return check(answer) if answer else default
            except EOFError:
                print(flush=True)
                self.asks = False
            except InputError as error:
                print(printable(str(error)), flush=True)
        return default


def _add_test(found: "Recognised", test: str | None, asker: Asker) -> None:
    """Gives a question set of the user's its test file, where it has none; asks for one.

    Raises:
        InputError: the data have a test set of their own.
    """
    own = not found.class_path.endswith("JSONLines")
    if own and test is not None:
        raise InputError(f"--test {test}: {found.class_path} has its own test set: leave the option out")
    if test is None and not own and "test" not in found.init_args:
        test = asker.ask("A file of test questions?", "", check=_existing) or None
    if test is not None:
        found.init_args["test"] = test


def _existing(name: str) -> str:
    if not Path(name).expanduser().exists():
        raise InputError(f"there is no file {name}: give one, or press Enter for none")
    return name


def _count(text: str) -> str:
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"{text}: give a whole number, at least 1")
    return text


def _check(options: argparse.Namespace, rest: Sequence[str]) -> None:
    """Refuses values that no data can make right, before anything heavy is imported."""
    for name in ("train_samples", "epochs"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise InputError(f"--{name} {value}: give at least 1")
    if any(word.partition("=")[0] in ("--config", "-c") for word in rest):
        raise InputError("--config: init writes a configuration and reads none: give its options one by one")
    if options.test is not None and not Path(options.test).expanduser().exists():
        raise InputError(f"--test: there is no file {options.test}: check the path")
    if options.out is not None or options.yes:
        _out(options.out or OUT, options.force)


def _out(name: str, force: bool) -> Path:
    """Where the configuration goes; refuses a file that is there already."""
    path = Path(name).expanduser()
    if path.suffix.lower() not in (".yaml", ".yml"):
        raise InputError(f"--out {name}: let its name end in .yaml")
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise InputError(f"--out {name}: it is a folder, or its folder does not exist: name a file")
    if path.exists() and not force:
        raise InputError(
            f"--out {name}: the file is there already: name another, or pass --force to replace it"
        )
    return path


def _look(draft: "Draft") -> "tuple[Draft, ReadSets]":
    """The draft with a limit for its data, and the data, which are shown."""
    from medqlora.commands.fitting_limit import read_fitting
    from medqlora.evaluation.report.look_console import look_lines

    draft, read = read_fitting(draft)
    notes = [line for line in read.look.remarks if not line.lower().startswith("warning")]
    lines = [
        *notes,
        *([read.note] if read.note else []),
        "",
        *look_lines(read.look.facts(), read.tokenizer_of),
        "",
    ]
    print("\n".join(map(printable, lines)), flush=True)
    return draft, read


def _size(draft: "Draft", read: "ReadSets", options: argparse.Namespace, asker: Asker) -> "Draft":
    """The draft with the number of questions and epochs."""
    count = len(read.look.records["train"])
    if options.train_samples is None:
        samples = int(asker.ask("How many questions to train on?", str(count), check=_count))
        draft = replace(draft, train_samples=samples if samples < count else None)
    epochs = options.epochs or int(asker.ask("Passes over them?", str(draft.run_epochs), check=_count))
    return replace(draft, epochs=epochs)


def _fitting(draft: "Draft", bases: Sequence[str]) -> "tuple[Draft, Report | str]":
    """The draft with the first of the base models that fits the memory by the plan, and the plan.

    The last one where none fits. In place of the plan, why there is none: the Hub can't be asked for the model's shape.
    """
    for base in bases:
        tried = replace(draft, base=base, epochs=draft.epochs if base == draft.base else None)
        try:
            report = _plan(tried)
        except InputError as error:
            if Path(base).expanduser().exists() or "Hub" not in str(error):
                raise
            return tried, f"not planned: {error}"
        if report["fits"] is not False or base == bases[-1]:
            return tried, report
        print(f"{base} does not fit the memory by the plan: trying the next", flush=True)
    raise InputError("--base: there is none to try: name one")


def _plan(draft: "Draft") -> "Report":
    from medqlora.commands.first_config import DEMO_BASE
    from medqlora.commands.plan import planned_report
    from medqlora.commands.read_sets import config_file
    from medqlora.config.check import check_options
    from medqlora.planner.speed import gpu_named

    machine = draft.machine
    named = None
    if not machine.here and machine.gpu is not None and draft.base != DEMO_BASE:
        with contextlib.suppress(InputError):
            named = gpu_named(machine.gpu)
    memory = machine.gpu_memory if draft.on_gpu else None
    with config_file(draft.text()) as path:
        check_options("fit", ["--config", path], files=True)
        return planned_report(["--config", path], named, memory, (None, None))


def _write(out: Path, draft: "Draft", read: "ReadSets", report: "Report | str", why: str) -> None:
    from medqlora import __version__
    from medqlora.commands.plan_report import memory_words, time_words
    from medqlora.evaluation.report.look_console import findings
    from medqlora.utils.files import write_text

    sets = ", ".join(f"{len(part):,} {name}" for name, part in read.look.records.items() if part)
    plan, notes = [f"Base:    {draft.base} ({why})"], []
    if isinstance(report, str):
        plan.append(f"Memory:  {report}")
    else:
        plan += [f"Memory:  {memory_words(report)}", f"Work:    {time_words(report)}"]
        notes = [f"Note:    {note}" for note in report["notes"]]
    typed = shlex.quote(str(out))
    # a comment to a shell: the line is often pasted whole
    follow = "" if read.look.records["test"] else " --data.source.test FILE  # FILE: your test questions"
    head = [
        f"Written by medqlora {__version__}: medqlora init",
        f"Data:    {read.look.source}: {sets} questions",
        *(f"         {line}" for line in findings(read.look.facts())[:4]),
        draft.machine.line(),
        *plan,
        *notes,
        "",
        f"  medqlora fit  --config {typed}",
        f"  medqlora test --config {typed}{follow}",
        "",
        "Every option: medqlora fit --help. The paths are seen from the folder where the command runs.",
    ]
    try:
        write_text(out, draft.text([printable(line.replace("\n", " ")) for line in head]))
    except OSError as error:
        raise InputError(
            f"--out {out}: it can't be written ({error.strerror}): name another place"
        ) from error
    lines = [*plan, *notes, f"Wrote {out}. Next:", f"  medqlora fit --config {typed}"]
    print("\n".join([*map(printable, lines), f"  medqlora test --config {typed}{follow}"]), flush=True)
