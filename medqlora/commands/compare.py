"""`medqlora compare`: runs side by side, from their folders alone; no model is loaded."""

import argparse
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medqlora.commands.arguments import Parser
from medqlora.commands.registry import Command
from medqlora.errors import InputError
from medqlora.utils.terminal import printable_line

if TYPE_CHECKING:
    from medqlora.artifacts.run_summary import RunSummary
    from medqlora.evaluation.report_data import PairedRow

COMMAND = Command(
    "compare", "runs side by side: settings, curves, tests with paired statistics, cost", rank=102
)

_EXAMPLES = """examples:
  medqlora compare lightning_logs/version_0 lightning_logs/version_3
  medqlora compare lightning_logs/cv_0 lightning_logs/cv_1      two cross-validations, by their out-of-fold answers
  medqlora compare lightning_logs/version_* --out runs.html

A fit is compared by the newest test of its adapter that lies beside it; a test by its own answers. All differences are
from the first run, on the questions that every tested run was asked.
"""
_WIDEST = 28


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    made = Parser(
        "compare",
        "Compares runs: what differs, how they learned, what they score, what they cost.",
        _EXAMPLES,
    )
    made.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="folders of fits, tests or cross-validations; the first is the reference",
    )
    made.add_argument(
        "--out",
        metavar="FILE",
        default="comparison.html",
        help="the page; replaced where it exists (default: %(default)s)",
    )
    made.add_argument(
        "--json", action="store_true", help="print everything as one line of JSON, and write no page"
    )
    return made


def run(command: str, words: list[str]) -> int:
    """Raises InputError for wrong options, or a folder that holds no run."""
    options = parser().parse_args(words)
    places = [str(Path(name).expanduser().resolve()) for name in options.runs]
    if len(places) < 2:
        raise InputError(f"RUN {options.runs[0]}: one run is nothing to compare: name two or more")
    twice = next(
        (name for name, place in zip(options.runs, places, strict=True) if places.count(place) > 1), None
    )
    if twice is not None:
        raise InputError(f"RUN {twice}: given twice: name each run once")
    out = Path(options.out).expanduser()
    if out.is_dir() or not out.parent.is_dir():
        raise InputError(f"--out {options.out}: name a file in a folder that is there")
    from medqlora.artifacts.run_summary import summarize

    runs = [summarize(name) for name in options.runs]
    rows, notes = paired(runs)
    if options.json:
        print(
            json.dumps(
                {"runs": [_plain(one) for one in runs], "tests": rows, "notes": notes}, allow_nan=False
            )
        )
        return 0
    _show(runs, rows, notes)
    from medqlora.evaluation.report.runs_page import render_runs
    from medqlora.utils.files import write_text

    names = [one.name for one in runs]
    curves = {one.name: one.curves for one in runs if one.curves}
    info = {
        "command": shlex.join(["medqlora", *sys.argv[1:]]),
        "tests": {one.name: one.tested or "none" for one in runs},
    }
    write_text(
        out, render_runs(names, differing(runs), curves, rows, best_scores(runs), costs(runs), notes, info)
    )
    print(f"\nPage: {out}", flush=True)
    return 0


def _how_to_test(run: "RunSummary") -> str:
    """The command that tests a run on the questions of its own configuration."""
    config, adapter = Path(run.name) / "config.yaml", Path(run.name) / "adapter"
    if not config.is_file() or not adapter.is_dir():
        return "it has no adapter of its own."
    words = ["medqlora", "test", "--config", str(config), "--model.adapter", str(adapter)]
    if run.settings.get("data.source.init_args.test") == "null":
        words += ["--data.source.test", "FILE"]
    return f"`{shlex.join(words)}`."


def paired(runs: "Sequence[RunSummary]") -> "tuple[list[PairedRow], list[str]]":
    """The tested runs on the questions of all of them, the first of them as reference; and what was left out.

    Raises:
        InputError: an id stands for two questions, or a question has different right answers in two runs.
    """
    from medqlora.evaluation.side_by_side import side_by_side

    notes = [
        f"{one.name} was not tested: {_how_to_test(one)}"
        if one.tested is None
        else f"{one.tested} has no decisions to pair: its report says how free answers compare."
        for one in runs
        if not one.answers
    ]
    tested = [one for one in runs if one.answers]
    notes += [  # a fit and the test of its adapter
        f"{one.name} and {tested[0].name} have one test, {one.tested}: it is compared with itself."
        for one in tested[1:]
        if one.tested is not None and one.tested == tested[0].tested
    ]
    if len(tested) < 2:
        return [], notes
    shared = [ident for ident in tested[0].answers if all(ident in one.answers for one in tested)]
    if not shared:
        sets = "; ".join(f"{one.name}: {one.dataset}" for one in tested)
        return [], [*notes, f"The tested runs have no question in common ({sets})."]
    most = max(len(one.answers) for one in tested)
    if len(shared) < most:
        notes.append(f"Compared on the {len(shared)} questions that all of them were asked; one has {most}.")
    gold = [tested[0].answers[ident].gold for ident in shared]
    for one in tested[1:]:
        texts = [(tested[0].answers[ident].question, one.answers[ident].question) for ident in shared]
        differs = next(
            (
                ident
                for ident, pair in zip(shared, texts, strict=True)
                if None not in pair and pair[0] != pair[1]
            ),
            None,
        )
        if differs is not None:
            raise InputError(
                f"RUN {one.name}: {differs} is another question than in {tested[0].name}: compare tests of the same "
                "data"
            )
        other = [one.answers[ident].gold for ident in shared]
        if other != gold:
            ident = next(ident for ident, a, b in zip(shared, gold, other, strict=True) if a != b)
            raise InputError(
                f"RUN {one.name}: question {ident} has another right answer than in {tested[0].name}"
            )
    decisions = {one.name: [one.answers[ident].decision for ident in shared] for one in tested}
    labels = sorted({*gold, *(each for of_run in decisions.values() for each in of_run if each is not None)})
    first = tested[0].name
    return side_by_side(gold, labels, (first, decisions.pop(first)), decisions), notes


def differing(runs: "Sequence[RunSummary]") -> dict[str, list[str]]:
    """Setting → its value in each run, of the settings that are not the same in all."""
    names = sorted({name for one in runs for name in one.settings})
    values = {name: [one.settings.get(name, "–") for one in runs] for name in names}
    known = [place for place, one in enumerate(runs) if one.settings]  # of an ensemble's test there are none
    return {name: of_run for name, of_run in values.items() if len({of_run[place] for place in known}) > 1}


def costs(runs: "Sequence[RunSummary]") -> dict[str, list[str]]:
    """Name with its unit → its value in each run."""
    names = dict.fromkeys(name for one in runs for name in one.cost)
    return {name: [_number(one.cost.get(name)) for one in runs] for name in names}


def best_scores(runs: "Sequence[RunSummary]") -> dict[str, list[str]]:
    """Name of a score → its best value in each run's validations."""
    names = dict.fromkeys(name for one in runs for name in one.best)
    return {name: [f"{one.best[name]:.4f}" if name in one.best else "–" for one in runs] for name in names}


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _plain(one: "RunSummary") -> Mapping[str, object]:
    return {
        "name": one.name,
        "kind": one.kind,
        "settings": dict(one.settings),
        "cost": dict(one.cost),
        "best": dict(one.best),
        "dataset": one.dataset,
        "tested": one.tested,
    }


def _show(runs: "Sequence[RunSummary]", rows: "Sequence[PairedRow]", notes: Sequence[str]) -> None:
    from medqlora.evaluation.report.side_by_side_table import paired_lines
    from medqlora.evaluation.report.wording import caution

    for title, values in (
        ("Settings that differ", differing(runs)),
        ("Best validation scores", best_scores(runs)),
        ("Cost", costs(runs)),
    ):
        if values:
            print(f"\n{title}")
            print(f"{'':<38}" + "".join(f"{_end(one.name):>{_WIDEST + 2}}" for one in runs))
            for name, of_run in values.items():
                print(f"{_end(name, 36):<38}" + "".join(f"{_end(value):>{_WIDEST + 2}}" for value in of_run))
    if rows:
        print(f"\nTest figures, on the {rows[0]['n']} questions that all runs answered")
        print("\n".join(paired_lines(rows, "run")))
        print(caution(rows[0]["n"]))
    for note in notes:
        print(f"Note: {printable_line(note)}")


def _end(text: str, width: int = _WIDEST) -> str:
    """The text in one line; of a long one the end, where paths and options differ."""
    text = printable_line(text)
    return text if len(text) <= width else "…" + text[1 - width :]
