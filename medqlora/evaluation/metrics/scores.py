"""From predictions to scores: pure functions, no model, no file, no clock."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import cast

import numpy as np

from medqlora.errors import InputError
from medqlora.evaluation.metrics.adjust import Normalisation, normalised, prior_corrected
from medqlora.evaluation.metrics.blocks import (
    decision_of,
    generation_block,
    headline_block,
    rationale_block,
    unparsed_fraction,
)
from medqlora.evaluation.metrics.calibration import calibration, supported_temperature
from medqlora.evaluation.metrics.checks import checked, in_order_of, matched_records
from medqlora.evaluation.metrics.free_answer import free_answer_scores, quick_free_answer_scores
from medqlora.evaluation.metrics.groups import MINIMUM_GROUP, by_group, by_length, topics
from medqlora.evaluation.metrics.label_threshold import label_threshold
from medqlora.evaluation.metrics.registry import registered_values
from medqlora.evaluation.report_data import (
    BaseScores,
    Calibration,
    CalibrationScores,
    ClassScores,
    ConfusionMatrix,
    DecidedBy,
    Group,
    Interval,
    LabelThreshold,
    MetricValue,
    Prior,
    Report,
    Temperature,
)
from medqlora.evaluation.statistics.intervals import accuracy, confusion_counts, human_baselines, macro_f1
from medqlora.evaluation.statistics.paired import compare
from medqlora.records import Prediction, Record

_INTERVALS = "95%: Wilson for accuracies, percentile bootstrap over questions (2,000) for macro-F1"


@dataclass(frozen=True)
class Scores:
    """The contract's keys of `test_report.json`. All shares are 0 to 1; None where a value cannot be known.

    Attributes:
        n: questions.
        decided_by: what the headline decides by: `likelihood`, `generation` or, for free answers,
            `exact_match`.
        accuracy, accuracy_ci95: with Wilson's 95% interval. An unparsed answer counts as wrong.
        macro_f1, macro_f1_ci95: over all labels; percentile bootstrap over questions.
        per_class, confusion_matrix: by label; rows are gold.
        ece, brier, nll: calibration of the label probabilities before any temperature.
        aurc: area under the risk-coverage curve; lower is better.
        unparsed_fraction: generated texts without a readable decision; None if nothing was generated.
        majority_accuracy: of always deciding for the most frequent gold label.
        human_accuracy: by the setting in which annotators worked; None without annotations.
        base: the base model's scores with `difference` and `difference_ci95`; None if not compared.
        mcnemar_p: exact, against the base model.
        by_topic: accuracy by topic; a question counts in each of its topics.
        dataset, split, prompt_sha256, adapter, seed: passed through by the caller.
        more: further keys of the report, of which none repeats a name above.
    """

    n: int
    decided_by: DecidedBy
    accuracy: float
    accuracy_ci95: Interval
    macro_f1: float | None
    macro_f1_ci95: Interval | None
    per_class: dict[str, ClassScores] | None
    confusion_matrix: ConfusionMatrix | None
    ece: float | None
    brier: float | None
    nll: float | None
    aurc: float | None
    unparsed_fraction: float | None
    majority_accuracy: float | None
    human_accuracy: dict[str, float] | None
    base: BaseScores | None
    mcnemar_p: float | None
    by_topic: list[Group]
    dataset: str | None
    split: str | None
    prompt_sha256: str | None
    adapter: str | None
    seed: int
    more: Report = field(default_factory=lambda: Report())

    @classmethod
    def of(cls, report: Report) -> "Scores":
        """The scores whose `to_json` gives `report`; absent keys of the contract are None."""
        names = {one.name for one in fields(cls)}
        return cls(
            n=report["n"],
            decided_by=report["decided_by"],
            accuracy=report["accuracy"],
            accuracy_ci95=report["accuracy_ci95"],
            macro_f1=report.get("macro_f1"),
            macro_f1_ci95=report.get("macro_f1_ci95"),
            per_class=report.get("per_class"),
            confusion_matrix=report.get("confusion_matrix"),
            ece=report.get("ece"),
            brier=report.get("brier"),
            nll=report.get("nll"),
            aurc=report.get("aurc"),
            unparsed_fraction=report.get("unparsed_fraction"),
            majority_accuracy=report.get("majority_accuracy"),
            human_accuracy=report.get("human_accuracy"),
            base=report.get("base"),
            mcnemar_p=report.get("mcnemar_p"),
            by_topic=report["by_topic"],
            dataset=report.get("dataset"),
            split=report.get("split"),
            prompt_sha256=report.get("prompt_sha256"),
            adapter=report.get("adapter"),
            seed=report["seed"],
            more=cast(Report, {name: value for name, value in report.items() if name not in names}),
        )

    def to_json(self) -> Report:
        """The keys of `test_report.json` as plain values."""
        plain = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "more"}
        return cast(Report, {**plain, **self.more})


def score(
    predictions: Sequence[Prediction],
    *,
    records: Sequence[Record],
    base: Sequence[Prediction] | None = None,
    dev: Sequence[Prediction] | None = None,
    seed: int = 0,
    normalisation: Normalisation = "none",
    prior: Prior | None = None,
    base_prior: Prior | None = None,
    dataset: str | None = None,
    split: str | None = None,
    prompt_sha256: str | None = None,
    adapter: str | None = None,
) -> Scores:
    """Scores one model's predictions on one set of questions.

    The headline is by label likelihood where labels were scored, else by the generated text. The same
    arguments give the same scores.

    Args:
        predictions: one a question.
        records: the questions, each once; for topics, human annotators and references.
        base: the base model's predictions on the same questions.
        dev: predictions on validation questions, none of them in `predictions`; for the temperature alone.
        seed: of the bootstrap.
        normalisation: `none` or `length`, see `adjust.normalised`.
        prior: log p(label) of a content-free prompt, see `adjust.prior_corrected`.
        base_prior: the same of the base model; without it the base model is compared uncorrected.
        dataset, split, prompt_sha256, adapter: passed through.

    Raises:
        InputError: no predictions, questions without an answer, or dev questions among the test's.
        ValueError: the arguments don't belong together.
    """
    checked(predictions, "test")
    matched = matched_records(predictions, records)
    if base is not None:
        checked(base, "base")
        base = in_order_of(predictions, base)
        if bool(base[0].logprobs) != bool(predictions[0].logprobs):
            raise ValueError("the base was scored by another means than the model: compare like with like")
    if predictions[0].labels:
        report = _label_report(predictions, matched, base, seed, normalisation, prior, base_prior)
        if dev and predictions[0].logprobs:
            report["temperature"] = _temperature(predictions, dev, normalisation, prior)
            compared, validated = (decided(part, normalisation, prior) for part in (predictions, dev))
            report["label_threshold"] = label_threshold(compared, validated, seed)
    else:
        report = free_answer_scores(predictions, base, seed)
    compared = decided(predictions, normalisation, prior)
    if values := registered_values(compared, matched) | _threshold_values(report.get("label_threshold")):
        report["metrics"] = values
        if base is not None and report["base"]:
            report["base"]["metrics"] = registered_values(decided(base, normalisation, base_prior), matched)
    report.update(
        {"dataset": dataset, "split": split, "prompt_sha256": prompt_sha256, "adapter": adapter, "seed": seed}
    )
    return Scores.of(report)


def _threshold_values(block: LabelThreshold | None) -> dict[str, MetricValue | None]:
    """The figures of a label's threshold among the metrics, which the terminal's table and the page show."""
    if block is None:
        return {}
    values = {
        "threshold": block["threshold"],
        "accuracy": block["accuracy"],
        "macro_f1": block["macro_f1"],
        "mcnemar_p": block["mcnemar_p"],
    }
    return {f"{block['label']}_by_threshold": values}


def quick_scores(predictions: Sequence[Prediction]) -> dict[str, float]:
    """The scores that a validation logs; a key is absent where it cannot be computed.

    Returns:
        `accuracy`, `macro_f1` and `unparsed_fraction` of the generated text; `likelihood_accuracy` and
        `likelihood_macro_f1` of the label log-likelihoods. For free answers `accuracy` is exact match, beside
        `token_f1` and `rouge_l`.

    Raises:
        InputError, ValueError: as `score`.
    """
    checked(predictions, "validation")
    if not predictions[0].labels:
        return quick_free_answer_scores(predictions) if predictions[0].text is not None else {}
    labels = _labels(predictions)
    gold = [str(prediction.gold) for prediction in predictions]
    quick: dict[str, float] = {}
    if predictions[0].text is not None:
        counts = confusion_counts(gold, [prediction.parsed for prediction in predictions], labels)
        quick.update(accuracy=accuracy(counts), macro_f1=float(macro_f1(counts)))
        quick["unparsed_fraction"] = float(counts[:, -1].sum() / counts.sum())
    if predictions[0].logprobs:
        counts = confusion_counts(gold, [prediction.decision for prediction in predictions], labels)
        quick.update(likelihood_accuracy=accuracy(counts), likelihood_macro_f1=float(macro_f1(counts)))
    return quick


def decided(
    predictions: Sequence[Prediction],
    normalisation: Normalisation | None = "none",
    prior: Prior | None = None,
) -> list[Prediction]:
    """The predictions with the log-likelihoods that `score` compares, for the report's lines.

    Takes `normalisation` and `prior` as the report has them, where None stands for no label scores.
    """
    corrected = predictions if prior is None else prior_corrected(predictions, prior)
    return normalised(corrected, normalisation or "none")


def _label_report(
    predictions: Sequence[Prediction],
    records: Sequence[Record],
    base: Sequence[Prediction] | None,
    seed: int,
    normalisation: Normalisation,
    prior: Prior | None,
    base_prior: Prior | None,
) -> Report:
    """The report of questions with labels, without a temperature; records and base in the predictions' order."""
    by_likelihood = bool(predictions[0].logprobs)
    if not by_likelihood and predictions[0].text is None:
        raise ValueError("neither label log-likelihoods nor generated text: there is nothing to score")
    compared, labels = decided(predictions, normalisation, prior), _labels(predictions)
    right = [decision_of(prediction, by_likelihood) == prediction.gold for prediction in compared]
    headline = headline_block(compared, labels, seed, by_likelihood)
    curves = headline.pop("calibration"), headline.pop("selective")
    human = human_baselines(records, labels, seed)
    base_block = None
    if base is not None:
        base_block = _base_block(compared, base, decided(base, normalisation, base_prior), records, seed)
    return {
        **headline,
        "decided_by": "likelihood" if by_likelihood else "generation",
        "unparsed_fraction": unparsed_fraction(predictions),
        "human_accuracy": {setting: scores["accuracy"] for setting, scores in human.items()} or None,
        "base": base_block,
        "mcnemar_p": base_block["mcnemar_p"] if base_block else None,
        "by_topic": by_group(topics(records), right, MINIMUM_GROUP),
        "normalisation": normalisation if by_likelihood else None,
        "prior": _plain(prior) if by_likelihood else None,
        "base_prior": _plain(base_prior) if by_likelihood else None,
        "label_mass": float(np.mean([one.label_mass for one in predictions])) if by_likelihood else None,
        "calibration": curves[0],
        "temperature": None,
        "selective": curves[1],
        "human": human,
        "by_context_length": by_length(predictions, right),
        "generation": generation_block(predictions, labels, seed),
        "rationale": rationale_block(predictions, records),
        "labels": labels,
        "intervals": _INTERVALS,
    }


def _base_block(
    compared: Sequence[Prediction],
    base: Sequence[Prediction],
    compared_base: Sequence[Prediction],
    records: Sequence[Record],
    seed: int,
) -> BaseScores:
    """The base model's scores, and the paired comparison of the predictions with it."""
    by_likelihood, labels = bool(compared[0].logprobs), _labels(compared)
    decisions, base_decisions = (
        [decision_of(one, by_likelihood) for one in of_model] for of_model in (compared, compared_base)
    )
    gold = [str(prediction.gold) for prediction in compared]
    return {
        **headline_block(compared_base, labels, seed, by_likelihood),
        **compare(gold, decisions, base_decisions, labels, seed),
        "generation": generation_block(base, labels, seed),
        "rationale": rationale_block(base, records),
        "unparsed_fraction": unparsed_fraction(base),
    }


def _labels(predictions: Sequence[Prediction]) -> list[str]:
    return list(dict.fromkeys(label for prediction in predictions for label in prediction.labels))


def _temperature(
    predictions: Sequence[Prediction],
    dev: Sequence[Prediction],
    normalisation: Normalisation,
    prior: Prior | None,
) -> Temperature:
    """The temperature that dev supports, and the test's calibration before and after it.

    Raises:
        InputError: dev questions are test questions too.
    """
    checked(dev, "dev")
    shared = {prediction.id for prediction in dev} & {prediction.id for prediction in predictions}
    if shared:
        raise InputError(
            f"{len(shared)} dev questions are test questions too (first: {min(shared)}): "
            "a temperature fitted on the test set would flatter the calibration"
        )
    compared = decided(predictions, normalisation, prior)
    value, why_not = supported_temperature(decided(dev, normalisation, prior))
    before, after = calibration(compared), calibration(compared, value)
    return {
        "value": value,
        "why_not_fitted": why_not,
        "fitted_on": len(dev),
        "before": _without_bins(before),
        "after": _without_bins(after),
        "bins_after": after["bins"],
    }


def _without_bins(scores: Calibration) -> CalibrationScores:
    return {"ece": scores["ece"], "brier": scores["brier"], "nll": scores["nll"]}


def _plain(prior: Prior | None) -> Prior | None:
    if prior is None:
        return None
    return dict(prior) if isinstance(prior, Mapping) else [float(value) for value in prior]
