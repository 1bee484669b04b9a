"""`medqlora test --ensemble A B …`: adapters that answer together, on one loaded base model."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medqlora.commands.asking import asking, load_several
from medqlora.commands.on_one_base import (
    HeldOut,
    adapter_folders,
    check_contamination,
    check_words,
    held_out_predictions,
    held_out_questions,
    kept_words,
    many_values,
    option_of,
    same_weights,
    test_sets,
    write_tested,
)
from medqlora.config.words import CommandLine, with_config
from medqlora.errors import InputError
from medqlora.utils.console import say

if TYPE_CHECKING:
    from medqlora.commands.lightning_cli import MedQLoRACLI
    from medqlora.evaluation import Tested
    from medqlora.inference import Calibration
    from medqlora.records import Prediction


@dataclass
class Answered:
    """The predictions for every set of a test.

    Attributes:
        alone: adapter → its predictions, a list a set.
        base: of the base model; empty where it is not compared.
        held_out: the ensemble's on its members' validation questions.
        seconds: for the test questions.
    """

    alone: "dict[str, list[list[Prediction]]]"
    base: "list[list[Prediction]]"
    held_out: HeldOut
    seconds: float


def run(words: list[str]) -> int:
    """Tests the ensemble, each member, and the adapters of --against on the same questions.

    Raises:
        InputError: options, data or adapters are wrong.
    """
    line = CommandLine.parse(with_config(words))
    members = adapter_folders(many_values(line, "ensemble"), "--ensemble")
    against = many_values(line, "against") if line.has("against") else []
    others = adapter_folders(against, "--against")
    if len(members) < 2:
        raise InputError(
            f"--ensemble {members[0]}: one adapter is no ensemble: name two or more, or pass --model.adapter"
        )
    kept = kept_words(line, "test")
    check_words(kept, "--ensemble")
    built = test_sets(kept, [*members, *others], "--ensemble")
    allow = bool(option_of(built, "report.allow_overlap"))
    contamination = check_contamination([*members, *others], built.datamodule, allow, "--ensemble")
    say(f"Ensemble of {len(members)} adapters: {', '.join(members)}")
    for group in same_weights(members):
        say(
            f"Note: the weights of {' and '.join(group)} are the same, so that they count as {len(group)} equal votes: "
            "runs differ by --data.seed, or by their fold"
        )
    answered = _ask(built, kept, members, others)
    tested, calibration = _scored(built, answered, members, others, contamination)
    facts = {
        "Base model": built.model.backend.base,
        "Ensemble": f"{len(members)} adapters, mean of their label log-probabilities",
        "Calibration": answered.held_out.words(len(members)),
        "Time": f"{answered.seconds:.1f} s for all answers of all adapters, after loading",
    }
    content = {
        "members": members,
        "method": "mean of the label log-probabilities",
        "calibration": None if calibration is None else calibration.to_json(),
        "calibrated_on": answered.held_out.to_json(len(members)),
    }
    folder = write_tested(kept, tested, facts, {"ensemble.json": content})
    _say_result(tested)
    say(f"Report:  {folder / 'report.html'}")
    return 0


def _ask(built: "MedQLoRACLI", words: list[str], members: Sequence[str], others: Sequence[str]) -> Answered:
    several = load_several([*members, *others], built, words, "--ensemble")
    sets = built.datamodule.sets
    for questions in sets:
        several.predictor.check_examples(questions.test)
    alone, base = {}, []
    asked: list[str | None] = [*members, *others, *([None] if built.value("compare_base") else [])]
    total = len(asked) * sum(len(questions.test) for questions in sets)
    started = time.perf_counter()
    with asking(several, built, "Test questions", total) as ask:
        for place, folder in enumerate([*members, *others], 1):
            say(f"Asking adapter {place} of {len(members) + len(others)}: {folder}")
            alone[folder] = ask.sets(folder, sets)
        if None in asked:
            base = ask.sets(None, sets)
    seconds = time.perf_counter() - started
    development = held_out_questions(members, words)
    with asking(several, built, "Validation questions", sum(one.answers for one in development)) as ask:
        held_out = held_out_predictions(ask, development)
    return Answered(alone, base, held_out, seconds)


def _scored(
    built: "MedQLoRACLI",
    answered: Answered,
    members: Sequence[str],
    others: Sequence[str],
    contamination: Mapping[str, object],
) -> "tuple[list[Tested], Calibration | None]":
    """A result for each set, and the calibration on the members' validation questions."""
    from medqlora.evaluation.side_by_side import side_by_side
    from medqlora.inference import calibrate
    from medqlora.inference.evaluator import SetPredictions
    from medqlora.inference.several import mean_log_probabilities
    from medqlora.training.tested_sets import ScoreOptions, score_set

    data, backend = built.datamodule, built.model.backend
    normalisation = option_of(built, "report.normalisation")
    options = ScoreOptions("length" if normalisation == "length" else "none")
    development = answered.held_out.predictions
    calibration = calibrate(development, built.model.options.target_risk) if development else None
    tested = []
    for place, questions in enumerate(data.sets):
        own = place == 0  # a benchmark's validation questions are not the source's
        mean = mean_log_probabilities([answered.alone[member][place] for member in members])
        base = answered.base[place] if answered.base else []
        result = score_set(
            questions,
            SetPredictions(test=mean, base=base, dev=development if own else []),
            options,
            seed=data.seed,
            prompt_sha256=questions.prompt.sha256(backend.tokenizer()),
            adapter=f"ensemble of {len(members)}: {', '.join(members)}",
        )
        labels = list(dict.fromkeys(label for one in mean for label in one.labels))
        rows = side_by_side(
            [str(one.gold) for one in mean],
            labels,
            ("the ensemble", [one.decision for one in mean]),
            {name: [one.decision for one in answered.alone[name][place]] for name in (*members, *others)},
            data.seed,
        )
        result.scores.more["side_by_side"] = rows
        result.scores.more["contamination"] = contamination.get(questions.source.name)  # type: ignore[typeddict-item]
        if own and calibration is not None and options.normalisation == "none":
            result.scores.more["threshold"] = calibration.applied(mean)
        tested.append(result)
    tested[0].scores.more["asking_s"] = round(answered.seconds, 2)
    return tested, calibration


def _say_result(tested: "Sequence[Tested]") -> None:
    from medqlora.evaluation import console_table, suite_table
    from medqlora.evaluation.report.side_by_side_table import paired_lines

    say("\n" + console_table(tested[0].scores))
    if len(tested) > 1:
        say("\n" + suite_table(tested))
    say("")
    for line in paired_lines(tested[0].scores.more["side_by_side"], "adapter"):
        say(line)
