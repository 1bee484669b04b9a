"""`medqlora test --library DIR`: each question is answered by the adapter that it is routed to."""

from collections import Counter
from typing import TYPE_CHECKING

from medqlora.artifacts.library import Library
from medqlora.commands.asking import asking, load_several
from medqlora.commands.library_use import one_value
from medqlora.commands.on_one_base import (
    check_contamination,
    check_words,
    kept_words,
    option_of,
    test_sets,
    write_tested,
)
from medqlora.config.words import CommandLine, with_config
from medqlora.utils.console import say

if TYPE_CHECKING:
    from medqlora.commands.lightning_cli import MedQLoRACLI
    from medqlora.data.question_set import QuestionSet
    from medqlora.evaluation import Tested
    from medqlora.inference.routed import RoutedPredictor


def run(words: list[str]) -> int:
    """Tests the library, and its general adapter on the same questions.

    Raises:
        InputError: options, data or the library are wrong.
    """
    line = CommandLine.parse(with_config(words))
    library = Library.open(one_value(line, "library"))
    folders, router = library.folders(), library.router()
    kept = kept_words(line, "test")
    check_words(kept, "--library")
    adapters = list(folders.values())
    built = test_sets(kept, adapters, "--library")
    allow = bool(option_of(built, "report.allow_overlap"))
    contamination = check_contamination(adapters, built.datamodule, allow, "--library")
    from medqlora.evaluation import console_table
    from medqlora.evaluation.report.side_by_side_table import paired_lines
    from medqlora.inference.routed import RoutedPredictor

    several = load_several(adapters, built, kept, "--library")
    routed = RoutedPredictor(several, folders, router)
    tested, counts = [], Counter[str]()
    for questions in built.datamodule.sets:
        result = _tested(built, questions, routed, counts)
        result.scores.more["contamination"] = contamination.get(questions.source.name)  # type: ignore[typeddict-item]
        tested.append(result)
    shown = ", ".join(f"{counts[name]} by {name}" for name in library.names if name in counts)
    facts = {"Base model": built.model.backend.base, "Library": str(library.path), "Answered": shown}
    content = {"library": str(library.path), "answered": dict(counts)}
    folder = write_tested(kept, tested, facts, {"routing.json": content})
    say("\n" + console_table(tested[0].scores))
    say(f"\nAnswered: {shown}")
    for row in paired_lines(tested[0].scores.more["side_by_side"], "answered by"):
        say(row)
    say(f"Report:  {folder / 'report.html'}")
    return 0


def _tested(
    built: "MedQLoRACLI", questions: "QuestionSet", routed: "RoutedPredictor", counts: "Counter[str]"
) -> "Tested":
    """The result of a set; adds how many of its questions each adapter has answered to `counts`."""
    from medqlora.evaluation.side_by_side import side_by_side
    from medqlora.inference.evaluator import SetPredictions
    from medqlora.training.tested_sets import ScoreOptions, score_set

    several, data = routed.several, built.datamodule
    records = [questions.records[example.id] for example in questions.test]
    examples = {example.id: example for example in questions.test}
    several.predictor.check_examples(questions.test)
    found, base = {}, []
    asks_base = bool(built.value("compare_base"))
    with asking(several, built, "Test questions", (3 if asks_base else 2) * len(records)) as ask:
        for name, group in routed.groups(records).items():
            counts[name] += len(group)
            found.update({one.id: one for one in ask(routed.folders[name], group, examples)})
        general = ask(routed.folders[routed.general], records, examples)
        if asks_base:
            base = ask(None, records, examples)
    mixed = [found[record.id] for record in records]
    result = score_set(
        questions,
        SetPredictions(test=mixed, base=base),
        ScoreOptions("length" if option_of(built, "report.normalisation") == "length" else "none"),
        seed=data.seed,
        prompt_sha256=questions.prompt.sha256(built.model.backend.tokenizer()),
        adapter=f"library of {len(routed.folders)}: {', '.join(routed.folders)}",
    )
    result.scores.more["side_by_side"] = side_by_side(
        [str(one.gold) for one in mixed],
        list(dict.fromkeys(label for one in mixed for label in one.labels)),
        (f"{routed.general} alone", [one.decision for one in general]),
        {"the library, routed": [one.decision for one in mixed]},
        data.seed,
    )
    return result
