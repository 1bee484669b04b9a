"""`medqlora library compare`: all adapters of a library on the same test questions, with paired tests by topic."""

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from medqlora.artifacts.library import Entry, Library
from medqlora.commands.asking import asking, load_several
from medqlora.commands.library_use import one_value
from medqlora.commands.on_one_base import check_contamination, check_words, option_of, test_sets
from medqlora.config.words import CommandLine, with_config
from medqlora.errors import InputError
from medqlora.utils.console import say

if TYPE_CHECKING:
    from medqlora.evaluation.report_data import PairedRow
    from medqlora.records import Prediction, Record

PAGE, RESULT = "comparison.html", "comparison.json"
_HELP = """usage: medqlora library compare [--library DIR] [--config FILE ...] [--OPTION VALUE ...]

Asks every adapter of a library the same test questions, on one loaded base model, and compares each specialised adapter
with the general one on the questions of its topics: exact McNemar tests, adjusted by Holm's method. The other options
are those of `medqlora test`. It writes comparison.html and comparison.json into the library's folder.
"""


def run(words: list[str]) -> int:
    """Compares the adapters.

    Raises:
        InputError: options, data or the library are wrong.
    """
    line = CommandLine.parse(words)
    if line.wants_help:
        print(_HELP, end="", flush=True)
        return 0
    library = Library.open(one_value(line, "library") if line.has("library") else "library")
    if not library.specialised:
        raise InputError(
            f"--library {library.path}: it has one adapter: add a specialised one with `medqlora library add`"
        )
    kept = with_config(line.without("library").words)
    folders = library.folders()
    check_words(kept, "--library")
    built = test_sets(kept, list(folders.values()), "--library")
    data = built.datamodule
    check_contamination(
        list(folders.values()), data, bool(option_of(built, "report.allow_overlap")), "--library"
    )
    several = load_several(list(folders.values()), built, kept, "--library")
    questions = data.sets[0]
    several.predictor.check_examples(questions.test)
    records = [questions.records[example.id] for example in questions.test]
    answers = {}
    with asking(several, built, "Test questions", len(folders) * len(records)) as ask:
        for place, (name, folder) in enumerate(folders.items(), 1):
            say(f"Asking adapter {place} of {len(folders)}: {name}")
            (answers[name],) = ask.sets(folder, [questions])
    overall, topics = _rows(library, records, answers, data.seed)
    _write(library, overall, topics, questions.source.name)
    return 0


def _rows(
    library: Library, records: "Sequence[Record]", answers: "Mapping[str, Sequence[Prediction]]", seed: int
) -> "tuple[list[PairedRow], dict[str, list[PairedRow]]]":
    """All adapters on all questions, and each specialised one with the general one on the questions of its topics."""
    from medqlora.evaluation.metrics.suite_scores import holm
    from medqlora.evaluation.side_by_side import side_by_side

    general, router = library.general, library.router()
    decisions = {name: [one.decision for one in found] for name, found in answers.items()}
    gold = [str(record.answer) for record in records]
    labels = list(dict.fromkeys(label for record in records for label in record.labels))
    others = {name: found for name, found in decisions.items() if name != general}
    if router is not None:
        names = [router.route(record).name for record in records]
        others = {**others, "routed": [decisions[name][place] for place, name in enumerate(names)]}
    overall = side_by_side(gold, labels, (general, decisions[general]), others, seed)
    topics: dict[str, list[PairedRow]] = {}
    for entry in library.specialised:
        places = [place for place, record in enumerate(records) if entry.has_topic(record)]
        if places:
            of_topic = {name: [decisions[name][place] for place in places] for name in (general, entry.name)}
            right = [gold[place] for place in places]
            rows = side_by_side(
                right, labels, (general, of_topic[general]), {entry.name: of_topic[entry.name]}, seed
            )
            topics[entry.name] = rows
    # one test a specialised adapter: adjusted for their number, not for that of the rows in each table
    adjusted = holm({name: p for name, rows in topics.items() if (p := rows[1]["mcnemar_p"]) is not None})
    for name, rows in topics.items():
        rows[1]["mcnemar_p_holm"] = adjusted[name]
    return overall, topics


def _write(
    library: Library, overall: "list[PairedRow]", topics: "dict[str, list[PairedRow]]", dataset: str
) -> None:
    """Writes the page and the figures, notes the outcome in library.toml, and prints it."""
    from medqlora.evaluation.report.files import write_files
    from medqlora.evaluation.report.library_page import FEW, render_library
    from medqlora.evaluation.report.side_by_side_table import paired_lines

    info = {
        "command": shlex.join(["medqlora", *sys.argv[1:]]),
        "library": str(library.path),
        "question set": dataset,
    }
    listed = {entry.name: list(entry.topics) for entry in library.specialised}
    content = {"dataset": dataset, "overall": overall, "by_topic": topics, "topics": listed}
    write_files(
        library.path,
        {
            PAGE: render_library(overall, topics, listed, info),
            RESULT: json.dumps(content, indent=2, allow_nan=False) + "\n",
        },
    )
    entries = {name: _noted(entry, topics.get(name), dataset) for name, entry in library.entries.items()}
    library.saved(entries=entries)
    say(f"\nAll {overall[0]['n']} questions of {dataset}")
    for line in paired_lines(overall, "adapter"):
        say(line)
    for name, rows in topics.items():
        say(f"\n{rows[0]['n']} questions of {name}'s topics: {', '.join(listed[name])}")
        for line in paired_lines(rows, "adapter"):
            say(line)
    without = [name for name in listed if name not in topics]
    if without:
        say(f"\nNo question of these adapters' topics: {', '.join(without)}")
    say(f"\n{FEW}")
    say(f"Page: {Path(library.path) / PAGE}")


def _noted(entry: Entry, rows: "list[PairedRow] | None", dataset: str) -> Entry:
    from medqlora.evaluation.side_by_side import verdict

    if rows is None:
        return entry
    row = rows[1]
    compared = {
        "dataset": dataset,
        "n": row["n"],
        "accuracy": row["accuracy"],
        "difference": row["difference"],
        "mcnemar_p_holm": row["mcnemar_p_holm"],
        "verdict": verdict(row),
    }
    return replace(entry, compared=compared)
