"""From what `test` heard to the scores of each question set, as reports and loggers get them."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from medqlora.evaluation import Tested, score
from medqlora.evaluation.report_data import LoggedName
from medqlora.inference.evaluator import SetPredictions, in_order

#: of a report's numbers, those that go to the loggers and that `trainer.test` returns
_NAMES: tuple[LoggedName, ...] = (
    *("accuracy", "macro_f1", "ece", "brier", "nll", "aurc", "unparsed_fraction", "mcnemar_p", "n"),
    *("token_f1", "rouge_l"),  # of free answers
)


class ScoreOptions(NamedTuple):
    """How the labels' log-likelihoods are compared, see `EvaluationReport`."""

    normalisation: Literal["none", "length"] = "none"
    prior_correction: bool = False


def score_set(module: Any, asked: Any, heard: SetPredictions, options: ScoreOptions) -> Tested:
    """The scores of one question set.

    Args:
        module: the QLoRAModule that answered.
        asked: the datamodule's `QuestionSet`.
        heard: the answers, of all processes.
        options: how they are compared.

    Raises:
        InputError, ValueError: as `medqlora.evaluation.score`.
    """
    predictions = in_order(heard.test, asked.test)
    base = in_order(heard.base, asked.test) if heard.base else None
    records = [asked.records[one.id] for one in predictions]
    corrected = options.prior_correction
    scores = score(
        predictions,
        records=records,
        base=base,
        dev=heard.dev or None,
        seed=module.data.seed,
        normalisation=options.normalisation,
        prior=heard.prior if corrected else None,
        base_prior=heard.base_prior if corrected and base else None,
        dataset=asked.source.name,
        split="test",
        prompt_sha256=asked.prompt.sha256(module.backend.tokenizer()),
        adapter=module.evaluated.name,
    )
    return Tested(asked.source.name, scores, predictions, records, base)


def logged_scores(tested: Sequence[Tested]) -> dict[str, float]:
    """The headline of the first set as "test/accuracy" and so on, of the others as "test/<name>/accuracy"."""
    metrics: dict[str, float] = {}
    for place, one in enumerate(tested):
        under = logged_under(place, one)
        report = one.scores.to_json()
        metrics |= {
            f"{under}/{name}": float(value)
            for name in _NAMES
            if name in report and (value := report[name]) is not None
        }
        if one.scores.base:
            metrics[f"{under}/base_accuracy"] = float(one.scores.base["accuracy"])
    return metrics


def logged_under(place: int, tested: Tested) -> str:
    """What the names of a set's scores begin with; `place` is the set's number."""
    return "test" if place == 0 else f"test/{tested.name.replace(' ', '_')}"
