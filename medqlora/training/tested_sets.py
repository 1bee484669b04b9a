"""The scores of each question set after `test`, for reports and loggers."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from medqlora.data.question_set import QuestionSet
from medqlora.evaluation import Tested, score
from medqlora.evaluation.metrics.retrieved import retrieval_block
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


def score_set(
    questions: QuestionSet,
    answers: SetPredictions,
    options: ScoreOptions,
    *,
    seed: int,
    prompt_sha256: str,
    adapter: str,
) -> Tested:
    """Scores one question set.

    Args:
        questions: the set.
        answers: predictions of all processes.
        options: comparison of the labels.
        seed: of the bootstrap.
        prompt_sha256: digest of the prompt's template.
        adapter: name of the evaluated weights.

    Raises:
        InputError, ValueError: as `medqlora.evaluation.score`.
    """
    predictions = in_order(answers.test, questions.test)
    base = in_order(answers.base, questions.test) if answers.base else None
    records = [questions.records[prediction.id] for prediction in predictions]
    corrected = options.prior_correction
    scores = score(
        predictions,
        records=records,
        base=base,
        dev=answers.dev or None,
        seed=seed,
        normalisation=options.normalisation,
        prior=answers.prior if corrected else None,
        base_prior=answers.base_prior if corrected and base else None,
        dataset=questions.source.name,
        split="test",
        prompt_sha256=prompt_sha256,
        adapter=adapter,
    )
    if questions.retrieval is not None and scores.decided_by != "exact_match":
        dev_ids = {example.id for example in questions.dev}
        evidence = questions.retrieval.evidence
        scores.more["retrieval"] = retrieval_block(
            predictions,
            answers.conditions,
            evidence,
            [one for ident, one in evidence.items() if ident in dev_ids],
            questions.retrieval.settings,
        )
    return Tested(questions.source.name, scores, predictions, records, base)


def logged_scores(tested: Sequence[Tested]) -> dict[str, float]:
    """The main scores: "test/accuracy" and so on of the first set, "test/<name>/accuracy" of the others."""
    metrics: dict[str, float] = {}
    for index, result in enumerate(tested):
        prefix = logged_under(index, result)
        report = result.scores.to_json()
        metrics |= {
            f"{prefix}/{name}": float(value)
            for name in _NAMES
            if name in report and (value := report[name]) is not None
        }
        if result.scores.base:
            metrics[f"{prefix}/base_accuracy"] = float(result.scores.base["accuracy"])
    return metrics


def logged_under(place: int, tested: Tested) -> str:
    """Prefix of the logged names of set number `place`."""
    return "test" if place == 0 else f"test/{tested.name.replace(' ', '_')}"
