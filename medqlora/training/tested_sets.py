"""The scores of each question set after `test`, for reports and loggers."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from medqlora.artifacts.live_report import LivePredictions
from medqlora.data.question_set import QuestionSet
from medqlora.evaluation import Tested, figures, score, suite_figure
from medqlora.evaluation.metrics.retrieved import retrieval_block
from medqlora.evaluation.report.verification_plots import verification_figures
from medqlora.evaluation.report_data import LiveComparison, LoggedName
from medqlora.evaluation.verification import Limits, compare, limits
from medqlora.inference.evaluator import SetPredictions, in_order

#: of a report's numbers, those that go to the loggers and that `trainer.test` returns
_NAMES: tuple[LoggedName, ...] = (
    *("accuracy", "macro_f1", "ece", "brier", "nll", "aurc", "unparsed_fraction", "mcnemar_p", "n"),
    *("token_f1", "rouge_l"),  # of free answers
)


class ScoreOptions(NamedTuple):
    """How the labels' log-likelihoods are compared, see `EvaluationReport`.

    Attributes:
        normalisation, prior_correction: those of `medqlora.config.ReportOptions`.
        live: of a merged model, the live adapter's predictions; None without its report.
        accepted: how far a merged model may be from it.
    """

    normalisation: Literal["none", "length"] = "none"
    prior_correction: bool = False
    live: LivePredictions | None = None
    accepted: Limits = limits(16)


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
        split=questions.split,
        prompt_sha256=prompt_sha256,
        adapter=adapter,
    )
    scores.more["topic_kind"] = questions.source.topic_kind
    scores.more["sample"] = None if questions.sample is None else questions.sample._asdict()
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
    live = None
    before = None if options.live is None else options.live.by_set.get(questions.source.name)
    if options.live is not None and before is not None and predictions[0].logprobs:
        live = compare(in_order(before, questions.test), predictions, options.accepted, records)
        scores.more["live"] = {**live.figures(), "source": str(options.live.folder)}
    return Tested(questions.source.name, scores, predictions, records, base, live)


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
        metrics |= {
            f"{prefix}/live_{name}": value for name, value in _live_scores(report.get("live")).items()
        }
    return metrics


def _live_scores(live: LiveComparison | None) -> dict[str, float]:
    """The numbers of a comparison with the live adapter."""
    if live is None:
        return {}
    values = {
        "accuracy": live["live_accuracy"],
        "accuracy_difference": live.get("accuracy_difference"),
        "mcnemar_p": live["mcnemar_p"],
        "mean_log_p_difference": live["mean_difference"],
        "largest_log_p_difference": live["largest_difference"],
        "changed_decisions": len(live["changed"]),
    }
    return {name: float(value) for name, value in values.items() if value is not None}


def log_figures(add_figure: Callable[..., object], tested: Sequence[Tested], step: int) -> None:
    """Logs the reports' figures to TensorBoard.

    Args:
        add_figure: of TensorBoard's SummaryWriter.
        tested: a question set each.
        step: the step that they are logged at.
    """
    for index, result in enumerate(tested):
        prefix = logged_under(index, result)
        drawn = figures(result.scores, result.predictions)
        if result.live is not None:
            drawn |= {f"live_{name}": figure for name, figure in verification_figures(result.live).items()}
        for name, figure in drawn.items():
            add_figure(f"{prefix}/{name}", figure, step, close=False)
    if len(tested) > 1:
        add_figure("test/suite", suite_figure(tested), step, close=False)


def logged_under(place: int, tested: Tested) -> str:
    """Prefix of the logged names of set number `place`."""
    return "test" if place == 0 else f"test/{tested.name.replace(' ', '_')}"
