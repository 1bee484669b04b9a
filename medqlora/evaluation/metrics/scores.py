"""From predictions to scores: pure functions, no model, no file, no clock."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

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
from medqlora.evaluation.metrics.calibration import calibration, fit_temperature
from medqlora.evaluation.metrics.checks import checked, in_order_of, matched_records
from medqlora.evaluation.metrics.free_answer import free_answer_scores, quick_free_answer_scores
from medqlora.evaluation.metrics.groups import (
    MINIMUM_GROUP,
    by_group,
    by_length,
    topics,
)
from medqlora.evaluation.statistics.intervals import (
    accuracy,
    confusion_counts,
    human_baselines,
    macro_f1,
)
from medqlora.evaluation.statistics.paired import compare
from medqlora.records import Prediction, Record


@dataclass(frozen=True)
class Scores:
    """What `test_report.json` says. All shares are 0 to 1; None where it can't be known.

    Attributes:
        n: questions.
        decided_by: what the headline decides by: `likelihood`, `generation` or, for free answers,
            `exact_match`.
        accuracy, accuracy_ci95: with Wilson's 95% interval. What could not be read is wrong.
        macro_f1, macro_f1_ci95: over all labels; percentile bootstrap over items.
        per_class, confusion_matrix: by label; rows are gold.
        ece, brier, nll: calibration of the label probabilities before any temperature.
        aurc: area under the risk-coverage curve; lower is better.
        unparsed_fraction: generated texts without a readable decision; None if nothing was generated.
        majority_accuracy: always saying the most frequent gold label.
        human_accuracy: by the setting in which annotators worked; None without annotations.
        base: the bare base's scores with `difference` and `difference_ci95`; None if not compared.
        mcnemar_p: exact, against the base.
        by_topic: accuracy by topic; a question counts in each of its topics.
        dataset, split, prompt_sha256, adapter, seed: passed through by the caller.
        more: further keys of the report, of which none repeats a name above.
    """

    n: int
    decided_by: str
    accuracy: float
    accuracy_ci95: list[float]
    macro_f1: float | None
    macro_f1_ci95: list[float] | None
    per_class: dict[str, Any] | None
    confusion_matrix: dict[str, Any] | None
    ece: float | None
    brier: float | None
    nll: float | None
    aurc: float | None
    unparsed_fraction: float | None
    majority_accuracy: float | None
    human_accuracy: dict[str, float] | None
    base: dict[str, Any] | None
    mcnemar_p: float | None
    by_topic: list[dict[str, Any]]
    dataset: str | None
    split: str | None
    prompt_sha256: str | None
    adapter: str | None
    seed: int
    more: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The keys of `test_report.json` as plain values."""
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "more"}
        return {**plain, **self.more}


def score(
    predictions: Sequence[Prediction],
    *,
    records: Sequence[Record],
    base: Sequence[Prediction] | None = None,
    dev: Sequence[Prediction] | None = None,
    seed: int = 0,
    normalisation: Normalisation = "none",
    prior: Sequence[float] | Mapping[str, float] | None = None,
    base_prior: Sequence[float] | Mapping[str, float] | None = None,
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
        base: the bare base's predictions on the same questions.
        dev: predictions on questions that are not among `predictions`, for the temperature alone.
        seed: of the bootstrap.
        normalisation: `none` or `length`, see `adjust.normalised`.
        prior: log p(label) of a content-free prompt, see `adjust.prior_corrected`.
        base_prior: the same of the bare base; the base is compared uncorrected without it.
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
    passed_through: dict[str, Any] = {
        "dataset": dataset,
        "split": split,
        "prompt_sha256": prompt_sha256,
        "adapter": adapter,
        "seed": seed,
    }
    if not predictions[0].labels:
        return Scores(**free_answer_scores(predictions, matched, base, seed), **passed_through)

    by_likelihood = bool(predictions[0].logprobs)
    if not by_likelihood and predictions[0].text is None:
        raise ValueError("neither label log-likelihoods nor generated text: there is nothing to score")
    compared = _compared(predictions, prior, normalisation)
    labels = list(dict.fromkeys(label for one in predictions for label in one.labels))
    gold = [str(one.gold) for one in predictions]
    said = [decision_of(one, by_likelihood) for one in compared]
    right = [answer == decision for answer, decision in zip(gold, said, strict=True)]
    headline = headline_block(compared, labels, seed, by_likelihood)
    per_question = headline.pop("calibration"), headline.pop("selective")
    human = human_baselines(matched, labels, seed)

    base_block = None
    if base is not None:
        base_compared = _compared(base, base_prior, normalisation)
        base_said = [decision_of(one, by_likelihood) for one in base_compared]
        base_block = {
            **headline_block(base_compared, labels, seed, by_likelihood),
            **compare(gold, said, base_said, labels, seed),
            "generation": generation_block(base, labels, seed),
            "rationale": rationale_block(base, matched),
        }
        base_block["unparsed_fraction"] = unparsed_fraction(base)

    more: dict[str, Any] = {
        "normalisation": normalisation if by_likelihood else None,
        "prior": _plain_prior(prior) if by_likelihood else None,
        "base_prior": _plain_prior(base_prior) if by_likelihood else None,
        "label_mass": float(np.mean([one.label_mass for one in predictions])) if by_likelihood else None,
        "calibration": per_question[0],
        "temperature": _temperature(compared, _dev(dev, predictions, prior, normalisation))
        if by_likelihood
        else None,
        "selective": per_question[1],
        "human": human,
        "by_context_length": by_length(predictions, right),
        "generation": generation_block(predictions, labels, seed),
        "rationale": rationale_block(predictions, matched),
        "labels": labels,
        "intervals": "95%: Wilson for accuracies, percentile bootstrap over questions (2,000) for macro-F1",
    }
    return Scores(
        **headline,
        decided_by="likelihood" if by_likelihood else "generation",
        unparsed_fraction=unparsed_fraction(predictions),
        human_accuracy={setting: one["accuracy"] for setting, one in human.items()} or None,
        base=base_block,
        mcnemar_p=None if base_block is None else base_block["mcnemar_p"],
        by_topic=by_group(topics(matched), right, MINIMUM_GROUP),
        more=more,
        **passed_through,
    )


def quick_scores(predictions: Sequence[Prediction]) -> dict[str, float]:
    """The few numbers that a validation epoch logs; a key is absent where it can't be computed.

    Returns:
        `accuracy`, `macro_f1` and `unparsed_fraction` of the generated text; `likelihood_accuracy` and
        `likelihood_macro_f1` of the label log-likelihoods. For free answers `accuracy` is exact match, beside
        `token_f1` and `rouge_l`.

    Raises:
        InputError, ValueError: as `score`.
    """
    checked(predictions, "validation")
    if not predictions[0].labels:
        written = predictions[0].text is not None
        return quick_free_answer_scores(predictions) if written else {}
    labels = list(dict.fromkeys(label for one in predictions for label in one.labels))
    gold = [str(one.gold) for one in predictions]
    quick: dict[str, float] = {}
    if predictions[0].text is not None:
        counts = confusion_counts(gold, [one.parsed for one in predictions], labels)
        quick.update(accuracy=accuracy(counts), macro_f1=float(macro_f1(counts)))
        quick["unparsed_fraction"] = float(counts[:, -1].sum() / counts.sum())
    if predictions[0].logprobs:
        counts = confusion_counts(gold, [one.decision for one in predictions], labels)
        quick.update(likelihood_accuracy=accuracy(counts), likelihood_macro_f1=float(macro_f1(counts)))
    return quick


def decided(
    predictions: Sequence[Prediction],
    normalisation: Normalisation | None = "none",
    prior: Sequence[float] | Mapping[str, float] | None = None,
) -> list[Prediction]:
    """The predictions with the log-likelihoods that `score` compares, for the report's lines.

    Takes `normalisation` and `prior` as they stand in the report, where None is for no label scores.
    """
    return _compared(predictions, prior, normalisation or "none")


def _compared(
    predictions: Sequence[Prediction],
    prior: Sequence[float] | Mapping[str, float] | None,
    normalisation: Normalisation,
) -> list[Prediction]:
    corrected = predictions if prior is None else prior_corrected(predictions, prior)
    return normalised(corrected, normalisation)


def _dev(
    dev: Sequence[Prediction] | None,
    predictions: Sequence[Prediction],
    prior: Sequence[float] | Mapping[str, float] | None,
    normalisation: Normalisation,
) -> list[Prediction]:
    """The dev predictions as the test's are compared; empty without any."""
    if not dev:
        return []
    checked(dev, "dev")
    shared = {one.id for one in dev} & {one.id for one in predictions}
    if shared:
        raise InputError(
            f"{len(shared)} dev questions are test questions too (first: {min(shared)}): "
            "a temperature fitted on the test set would flatter the calibration"
        )
    return _compared(dev, prior, normalisation)


def _temperature(compared: Sequence[Prediction], dev: Sequence[Prediction]) -> dict[str, Any] | None:
    """The temperature fitted on dev, and the test's calibration before and after it."""
    if not dev:
        return None
    value = fit_temperature(dev)
    before, after = calibration(compared), calibration(compared, value)
    return {
        "value": value,
        "fitted_on": len(dev),
        "before": {key: before[key] for key in ("ece", "brier", "nll")},
        "after": {key: after[key] for key in ("ece", "brier", "nll")},
        "bins_after": after["bins"],
    }


def _plain_prior(prior: Sequence[float] | Mapping[str, float] | None) -> Any:
    if prior is None:
        return None
    return dict(prior) if isinstance(prior, Mapping) else [float(value) for value in prior]
