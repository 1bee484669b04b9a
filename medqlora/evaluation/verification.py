"""An exported model against the live one, on the same questions: did any answer change?"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

from medqlora.evaluation.report_data import Interval, LiveComparison, Pairs
from medqlora.evaluation.statistics.intervals import wilson_interval
from medqlora.evaluation.statistics.paired import mcnemar_exact, paired_difference_interval
from medqlora.records import Prediction, Record

#: largest difference of a label's log-probability (nats) that an export may make, by the bits of its weights
TOLERANCE = {32: 0.02, 16: 0.02, 8: 0.1, 4: 0.5}
#: a decision may change where the live model's two likeliest labels are no further apart than this
MARGIN = 0.05


class Limits(NamedTuple):
    """What an export may change.

    Attributes:
        difference: largest difference of a label's log-probability, in nats.
        margin: a decision may change where the live model's two largest probabilities are no further apart.
    """

    difference: float
    margin: float = MARGIN


def limits(bits: int, tolerance: float | None = None) -> Limits:
    """The limits for weights of so many bits.

    Args:
        bits: of a weight.
        tolerance: a user's largest difference, in nats. Of two labels it can turn a decision with a margin up to
            tanh(tolerance), which is accepted too.
    """
    if tolerance is None:
        return Limits(TOLERANCE[bits])
    return Limits(tolerance, max(MARGIN, math.tanh(tolerance)))


@dataclass(frozen=True)
class ComparedQuestion:
    """What the two models say of a question.

    Attributes:
        id, question, gold, labels: the question's; `gold` is None where the answer is unknown.
        live, exported: log p of each label, in nats.
    """

    id: str
    question: str
    gold: str | None
    labels: tuple[str, ...]
    live: tuple[float, ...]
    exported: tuple[float, ...]

    @property
    def differences(self) -> tuple[float, ...]:
        """Exported minus live, of each label."""
        return tuple(other - one for one, other in zip(self.live, self.exported, strict=True))


@dataclass(frozen=True)
class ChangedDecision:
    """A question that the two models decide differently.

    Attributes:
        id, question, gold: the question's.
        live, exported: the decisions.
        margin: difference of the live model's two largest label probabilities.
        exported_margin: of the exported model's.
    """

    id: str
    live: str
    exported: str
    margin: float
    exported_margin: float
    question: str
    gold: str | None


@dataclass(frozen=True)
class PairedAccuracy:
    """The accuracies of both models on the same questions.

    Attributes:
        live, exported: accuracies, with Wilson's 95% intervals.
        difference: exported minus live, with Newcombe's paired 95% interval.
        mcnemar_p: exact McNemar test.
        pairs: questions by who is right; "this" is the exported model, "base" the live one.
    """

    live: float
    live_ci95: Interval
    exported: float
    exported_ci95: Interval
    difference: float
    difference_ci95: Interval
    mcnemar_p: float
    pairs: Pairs

    @classmethod
    def of(cls, right: Sequence[tuple[bool, bool]]) -> "PairedAccuracy":
        """Of (live is right, exported is right) of each question; there is at least one."""
        n, both, neither = len(right), right.count((True, True)), right.count((False, False))
        only_live, only_exported = right.count((True, False)), right.count((False, True))
        return cls(
            live=(both + only_live) / n,
            live_ci95=list(wilson_interval(both + only_live, n)),
            exported=(both + only_exported) / n,
            exported_ci95=list(wilson_interval(both + only_exported, n)),
            difference=(only_exported - only_live) / n,
            difference_ci95=list(paired_difference_interval(both, only_exported, only_live, neither)),
            mcnemar_p=mcnemar_exact(only_live, only_exported),
            pairs={
                "both_right": both,
                "only_this_right": only_exported,
                "only_base_right": only_live,
                "both_wrong": neither,
            },
        )


@dataclass(frozen=True)
class Verification:
    """What the comparison found.

    Attributes:
        questions: both models' log-probabilities, by question.
        mean_difference, largest_difference: |log p(label, live) - log p(label, exported)| over questions and labels, in
            nats.
        mean_kl: Kullback-Leibler divergence of the exported label distribution from the live one, in nats.
        changed: the changed decisions.
        accuracy: over the questions whose answer is known; None without one.
        limits: what is accepted.
    """

    questions: tuple[ComparedQuestion, ...]
    mean_difference: float
    largest_difference: float
    mean_kl: float
    changed: tuple[ChangedDecision, ...]
    accuracy: PairedAccuracy | None
    limits: Limits

    @property
    def n(self) -> int:
        """Number of questions."""
        return len(self.questions)

    @property
    def firm_changes(self) -> list[ChangedDecision]:
        """The changed decisions that are not accepted: the live model was too sure of them."""
        return [change for change in self.changed if change.margin > self.limits.margin]

    @property
    def faults(self) -> list[str]:
        """Why the export is not accepted, a line each; empty where it is."""
        faults = []
        if not self.largest_difference <= self.limits.difference:  # NaN is no agreement
            faults.append(
                f"the largest difference of a label's log-probability is {self.largest_difference:.3g}, at most "
                f"{self.limits.difference:g} is accepted"
            )
        firm = self.firm_changes
        if firm:
            first = firm[0]
            faults.append(
                f"{len(firm)} of {self.n} decisions changed, as {first.id} from {first.live} to {first.exported} "
                f"(margin {first.margin:.2f})"
            )
        return faults

    def lines(self) -> list[str]:
        """The comparison in words, for a terminal."""
        lines = [
            f"Verified on {self.n} questions: mean difference of a label's log-probability {self.mean_difference:.2g} "
            f"nats, largest {self.largest_difference:.2g}, mean KL {self.mean_kl:.2g}",
            f"Changed decisions: {len(self.changed)}",
        ]
        if self.accuracy is not None:
            lines.append(
                f"Accuracy: live {self.accuracy.live:.1%}, exported {self.accuracy.exported:.1%} (McNemar p "
                f"{self.accuracy.mcnemar_p:.2g})"
            )
        return lines

    def figures(self) -> LiveComparison:
        """The comparison as plain values, without the single questions."""
        accuracy = self.accuracy
        compared: LiveComparison = {
            "n": self.n,
            "mean_difference": self.mean_difference,
            "largest_difference": self.largest_difference,
            "mean_kl": self.mean_kl,
            "changed": [asdict(change) for change in self.changed],
        }
        if accuracy is None:
            return {**compared, "live_accuracy": None, "exported_accuracy": None, "mcnemar_p": None}
        return {
            **compared,
            "live_accuracy": accuracy.live,
            "live_accuracy_ci95": accuracy.live_ci95,
            "exported_accuracy": accuracy.exported,
            "exported_accuracy_ci95": accuracy.exported_ci95,
            "accuracy_difference": accuracy.difference,
            "accuracy_difference_ci95": accuracy.difference_ci95,
            "mcnemar_p": accuracy.mcnemar_p,
            "pairs": accuracy.pairs,
        }

    def to_json(self) -> dict[str, object]:
        """The comparison with its limits, whether the export is accepted, and each question."""
        return {
            **self.figures(),
            "limits": self.limits._asdict(),
            "accepted": not self.faults,
            "faults": self.faults,
            "questions": [asdict(question) for question in self.questions],
        }


def compare(
    live: Sequence[Prediction],
    exported: Sequence[Prediction],
    limits: Limits,
    records: Sequence[Record] = (),
) -> Verification:
    """Compares the predictions of two models, question by question.

    Args:
        live, exported: predictions with label log-likelihoods, of the same questions.
        limits: what is accepted.
        records: the questions, for their texts.

    Raises:
        ValueError: the questions differ, or there are none with labels.
    """
    if [one.id for one in live] != [other.id for other in exported]:
        raise ValueError("the two models were given different questions")
    texts = {record.id: record.question for record in records}
    pairs = [(one, other) for one, other in zip(live, exported, strict=True) if one.logprobs]
    if not pairs:
        raise ValueError("no question has labels")
    questions = tuple(
        ComparedQuestion(one.id, texts.get(one.id, ""), one.gold, one.labels, one.logprobs, other.logprobs)
        for one, other in pairs
    )
    differences = [abs(value) for question in questions for value in question.differences]
    kl = [
        sum(
            p * math.log(p / max(q, 1e-300))
            for p, q in zip(one.probabilities, other.probabilities, strict=True)
            if p
        )
        for one, other in pairs
    ]
    changed = tuple(
        ChangedDecision(
            one.id,
            str(one.decision),
            str(other.decision),
            _margin(one),
            _margin(other),
            texts.get(one.id, ""),
            one.gold,
        )
        for one, other in pairs
        if one.decision != other.decision
    )
    known = [(one, other) for one, other in pairs if one.gold in one.labels]
    right = [(one.decision == one.gold, other.decision == other.gold) for one, other in known]
    return Verification(
        questions=questions,
        mean_difference=sum(differences) / len(differences),
        largest_difference=max(differences, key=lambda value: math.inf if math.isnan(value) else value),
        mean_kl=sum(kl) / len(kl),
        changed=changed,
        accuracy=PairedAccuracy.of(right) if right else None,
        limits=limits,
    )


def _margin(prediction: Prediction) -> float:
    first, *rest = sorted(prediction.probabilities, reverse=True)
    return first - rest[0] if rest else 1.0
