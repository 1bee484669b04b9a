"""`--library DIR` of `ask`, `predict` and `test`: a library's adapters, loaded with its topic classifier."""

from typing import TYPE_CHECKING

from medqlora.artifacts.library import Library
from medqlora.commands.on_one_base import (
    check_contamination,
    check_words,
    device_of,
    kept_words,
    option_of,
    test_sets,
    write_tested,
)
from medqlora.config.words import CommandLine, with_config
from medqlora.errors import InputError
from medqlora.utils.console import say

if TYPE_CHECKING:
    from medqlora.inference.routed import RoutedPredictor


def load_library(
    folder: str,
    *,
    base: str | None = None,
    device: str = "auto",
    generate: bool = True,
    max_new_tokens: int = 96,
) -> "RoutedPredictor":
    """Loads a library's base model and adapters.

    Raises:
        InputError: the library or an adapter is damaged, or can't be loaded.
    """
    library = Library.open(folder)
    folders, router = library.folders(), library.router()
    from medqlora.inference.routed import RoutedPredictor
    from medqlora.inference.several import SeveralAdapters

    several = SeveralAdapters.load(
        list(folders.values()),
        base=base,
        device=device,
        generate=generate,
        max_new_tokens=max_new_tokens,
        option="--library",
    )
    return RoutedPredictor(several, folders, router)


def one_value(line: CommandLine, name: str) -> str:
    """The value of an option of the command.

    Raises:
        InputError: it has none, or several.
    """
    values = line.all_values(name)
    if len(values) != 1:
        raise InputError(f"--{name}: it takes one value: write --{name} VALUE")
    return values[0]


def test(words: list[str]) -> int:
    """`medqlora test --library DIR`: each question is answered by the adapter that it is routed to.

    Raises:
        InputError: options, data or the library are wrong.
    """
    line = CommandLine.parse(with_config(words))
    library = Library.open(one_value(line, "library"))
    folders, router = library.folders(), library.router()
    kept = kept_words(line, "test")
    check_words(kept, "--library")
    built = test_sets(kept, list(folders.values()), "--library")
    data = built.datamodule
    allow = bool(option_of(built, "report.allow_overlap"))
    contamination = check_contamination(list(folders.values()), data, allow, "--library")
    from medqlora.evaluation import console_table
    from medqlora.evaluation.report.side_by_side_table import paired_lines
    from medqlora.evaluation.side_by_side import side_by_side
    from medqlora.inference.evaluator import SetPredictions
    from medqlora.inference.routed import RoutedPredictor
    from medqlora.inference.several import SeveralAdapters
    from medqlora.training.tested_sets import ScoreOptions, score_set

    several = SeveralAdapters.load(list(folders.values()), device=device_of(kept), option="--library")
    routed = RoutedPredictor(several, folders, router)
    tested, counts = [], dict[str, int]()
    for questions in data.sets:
        records = [questions.records[example.id] for example in questions.test]
        examples = {example.id: example for example in questions.test}
        several.predictor.check_examples(questions.test)
        groups = routed.groups(records)
        found = {}
        for name, group in groups.items():
            counts[name] = counts.get(name, 0) + len(group)
            found.update({one.id: one for one in several.predict(folders[name], group, examples)})
        mixed = [found[record.id] for record in records]
        general = several.predict(folders[library.general], records, examples)
        base = several.predict(None, records, examples) if built.value("compare_base") else []
        result = score_set(
            questions,
            SetPredictions(test=mixed, base=base),
            ScoreOptions("length" if option_of(built, "report.normalisation") == "length" else "none"),
            seed=data.seed,
            prompt_sha256=questions.prompt.sha256(built.model.backend.tokenizer()),
            adapter=f"library {library.path}",
        )
        rows = side_by_side(
            [str(one.gold) for one in mixed],
            list(dict.fromkeys(label for one in mixed for label in one.labels)),
            (f"{library.general} alone", [one.decision for one in general]),
            {"the library, routed": [one.decision for one in mixed]},
            data.seed,
        )
        result.scores.more["side_by_side"] = rows
        result.scores.more["contamination"] = contamination.get(questions.source.name)  # type: ignore[typeddict-item]
        tested.append(result)
    shown = ", ".join(f"{counts[name]} by {name}" for name in library.names if name in counts)
    facts = {"Base model": built.model.backend.base, "Library": str(library.path), "Answered": shown}
    folder = write_tested(
        kept, tested, facts, {"routing.json": {"library": str(library.path), "answered": counts}}
    )
    say("\n" + console_table(tested[0].scores))
    say(f"\nAnswered: {shown}")
    for row in paired_lines(tested[0].scores.more["side_by_side"], "answered by"):
        say(row)
    say(f"Report:  {folder / 'report.html'}")
    return 0
