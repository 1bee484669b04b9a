"""`medqlora data`: what a fit will read, before it reads it: a table and a page."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from medqlora.commands.arguments import Parser, own_and_rest
from medqlora.commands.early_read import read_found_early
from medqlora.commands.registry import Command
from medqlora.errors import InputError

if TYPE_CHECKING:
    from medqlora.commands.read_sets import ReadSets
    from medqlora.evaluation.data_look import LookFacts

COMMAND = Command("data", "a look at the data: lengths, labels, duplicates, loss mask, packing", rank=5)

PAGE = "data_look.html"
#: stands near the top of every page of this command
_MARK = "before any training"

_EXAMPLES = """examples:
  medqlora data questions.csv                          as `init` would set it up on this machine
  medqlora data questions.csv --base unsloth/llama-3-8b-bnb-4bit --page look.html
  medqlora data --config my.yaml                       the data of a configuration
  medqlora data pubmedqa --json                        the figures as one line of JSON, and no page

Every option of `medqlora fit` may follow, as --data.source.labels or --data.max_prompt_tokens.
"""


def parser() -> argparse.ArgumentParser:
    """The command's own options; those of `fit` may follow."""
    made = Parser(
        "data",
        "What a fit will read, before it runs: how the files are understood, labels by split, lengths against the\n"
        "prompt limit, duplicates and near-duplicates, questions without context, and, on a page, examples token by\n"
        "token with their loss mask and the packing of the first steps. Nothing is trained.",
        _EXAMPLES,
    )
    made.add_argument(
        "source",
        nargs="?",
        metavar="FILE|FOLDER|pubmedqa|demo",
        help="the data; without it, that of --config",
    )
    made.add_argument(
        "--base", metavar="NAME", help="the base model whose tokenizer counts: a Hub name or a folder"
    )
    made.add_argument(
        "--page", default=PAGE, metavar="FILE", help="the page to write, or none (default: %(default)s)"
    )
    made.add_argument(
        "--examples",
        type=int,
        default=5,
        metavar="N",
        help="examples shown token by token (default: %(default)s)",
    )
    made.add_argument(
        "--json", action="store_true", help="print the figures as one line of JSON; writes no page"
    )
    return made


def run(command: str, words: list[str]) -> int:
    """Raises InputError for wrong options or data that can't be read."""
    made = parser()
    own, rest = own_and_rest(made, words)
    options = made.parse_args(own)
    page = None if options.json or options.page == "none" else _page_path(options.page)
    if options.examples < 0:
        raise InputError(f"--examples {options.examples}: give 0 or more")
    read = _read(options.source, options.base, rest)
    facts = read.look.facts()
    if options.json:
        print(json.dumps({"tokenizer": read.tokenizer_of, **facts}), flush=True)
        return 0
    if page is not None:
        _write_page(page, read, facts, options.examples)
    _print(read, facts)
    if page is not None:
        print(f"Page:    {page}", flush=True)
    return 0


def _read(source: str | None, base: str | None, rest: list[str]) -> "ReadSets":
    """The sets of the source, or of the configuration that `rest` names."""
    from medqlora.commands.places import check_cache
    from medqlora.config.check import check_options
    from medqlora.config.words import CommandLine, with_config

    if source is None and not CommandLine.parse(rest).has("config", "data.source"):
        raise InputError(
            "the data are missing: write a file, a folder or pubmedqa after `medqlora data`, or --config"
        )
    if source is not None and not CommandLine.parse(rest).has("config"):
        return _read_drafted(source, base, rest)
    if source is not None:
        from medqlora.data.sources.recognised import recognised

        found = recognised(source, "data")
        rest = [*rest, f"--data.source={found.class_path}"]
        rest += [f"--data.source.{name}={value}" for name, value in found.init_args.items()]
    if base is not None:
        rest = [*rest, "--model.backend=medqlora.models.Transformers", f"--model.backend.base={base}"]
    rest = with_config(rest)
    check_options("fit", rest, files=True)
    check_cache(rest)
    from medqlora.commands.read_sets import read_sets

    return read_sets(rest)


def _read_drafted(source: str, base: str | None, rest: list[str]) -> "ReadSets":
    """The sets as `init` would set them up on this machine."""
    from medqlora.data.sources.recognised import recognised

    found = recognised(source, "data")
    read_found_early(found, None, rest)
    from medqlora.commands.first_config import Draft, suggested_bases
    from medqlora.commands.fitting_limit import read_fitting
    from medqlora.commands.machine import this_machine

    machine = this_machine()
    draft = Draft(found, base or suggested_bases(machine)[0][0], machine, more=rest)
    return read_fitting(draft)[1]


def _page_path(name: str) -> Path:
    """Where the page goes; refuses to replace a file that is no such page."""
    path = Path(name).expanduser()
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise InputError(f"--page {name}: it is a folder, or its folder does not exist: name a file")
    if path.exists():
        with path.open("rb") as stream:
            if _MARK.encode() not in stream.read(64 * 1024):
                raise InputError(
                    f"--page {name}: this file is there and is no page of `medqlora data`: name another"
                )
    return path


def _write_page(path: Path, read: "ReadSets", facts: "LookFacts", examples: int) -> None:
    from medqlora.evaluation.report.look_page import render_look
    from medqlora.utils.files import now, write_text

    about = {"tokens of": read.tokenizer_of, "made": now()}
    text = render_look(read.look, facts, read.tokenizer, about, examples)
    try:
        write_text(path, text)
    except OSError as error:
        raise InputError(
            f"--page {path}: it can't be written ({error.strerror}): name another place"
        ) from error


def _print(read: "ReadSets", facts: "LookFacts") -> None:
    from medqlora.evaluation.report.look_console import look_lines
    from medqlora.utils.terminal import printable

    remarks = [line for line in read.look.remarks if not line.lower().startswith("warning")]
    lines = [*remarks, *([read.note] if read.note else []), "", *look_lines(facts, read.tokenizer_of)]
    print("\n".join(map(printable, lines)), flush=True)
