"""An exported model against the live one, on the same questions: did any answer change?"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

from medqlora.evaluation.statistics.paired import mcnemar_exact
from medqlora.records import Prediction

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
class ChangedDecision:
    """A question that the two models decide differently.

    Attributes:
        id: the question's.
        live, exported: the decisions.
        margin: difference of the live model's two largest label probabilities.
    """

    id: str
    live: str
    exported: str
    margin: float


@dataclass(frozen=True)
class Verification:
    """What the comparison found.

    Attributes:
        n: number of questions.
        mean_difference, largest_difference: |log p(label, live) - log p(label, exported)| over questions and labels, in
            nats.
        mean_kl: Kullback-Leibler divergence of the exported label distribution from the live one, in nats.
        changed: the changed decisions.
        live_accuracy, exported_accuracy: over the questions whose answer is known; None without one.
        mcnemar_p: exact McNemar test of the two; None without a known answer.
        limits: what is accepted.
    """

    n: int
    mean_difference: float
    largest_difference: float
    mean_kl: float
    changed: tuple[ChangedDecision, ...]
    live_accuracy: float | None
    exported_accuracy: float | None
    mcnemar_p: float | None
    limits: Limits

    @property
    def faults(self) -> list[str]:
        """Why the export is not accepted, a line each; empty where it is."""
        faults = []
        if not self.largest_difference <= self.limits.difference:  # NaN is no agreement
            faults.append(
                f"the largest difference of a label's log-probability is {self.largest_difference:.3g}, at most "
                f"{self.limits.difference:g} is accepted"
            )
        firm = [change for change in self.changed if change.margin > self.limits.margin]
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
        if self.live_accuracy is not None:
            lines.append(
                f"Accuracy: live {self.live_accuracy:.1%}, exported {self.exported_accuracy:.1%} (McNemar p "
                f"{self.mcnemar_p:.2g})"
            )
        return lines

    def to_json(self) -> dict[str, object]:
        """The fields, and whether the export is accepted."""
        return {
            **asdict(self),
            "limits": self.limits._asdict(),
            "accepted": not self.faults,
            "faults": self.faults,
        }


def compare(live: Sequence[Prediction], exported: Sequence[Prediction], limits: Limits) -> Verification:
    """Compares the predictions of two models, question by question.

    Args:
        live, exported: predictions with label log-likelihoods, of the same questions.
        limits: what is accepted.

    Raises:
        ValueError: the questions differ, or there are none with labels.
    """
    if [one.id for one in live] != [other.id for other in exported]:
        raise ValueError("the two models were given different questions")
    pairs = [(one, other) for one, other in zip(live, exported, strict=True) if one.logprobs]
    if not pairs:
        raise ValueError("no question has labels")
    differences = [
        abs(a - b) for one, other in pairs for a, b in zip(one.logprobs, other.logprobs, strict=True)
    ]
    kl = [
        sum(
            p * math.log(p / max(q, 1e-300))
            for p, q in zip(one.probabilities, other.probabilities, strict=True)
            if p
        )
        for one, other in pairs
    ]
    changed = tuple(
        ChangedDecision(one.id, str(one.decision), str(other.decision), _margin(one))
        for one, other in pairs
        if one.decision != other.decision
    )
    known = [(one, other) for one, other in pairs if one.gold in one.labels]
    right = [(one.decision == one.gold, other.decision == other.gold) for one, other in known]
    return Verification(
        n=len(pairs),
        mean_difference=sum(differences) / len(differences),
        largest_difference=max(differences, key=lambda value: math.inf if math.isnan(value) else value),
        mean_kl=sum(kl) / len(kl),
        changed=changed,
        live_accuracy=sum(one for one, _ in right) / len(right) if right else None,
        exported_accuracy=sum(other for _, other in right) / len(right) if right else None,
        mcnemar_p=mcnemar_exact(right.count((True, False)), right.count((False, True))) if right else None,
        limits=limits,
    )


def _margin(prediction: Prediction) -> float:
    first, *rest = sorted(prediction.probabilities, reverse=True)
    return first - rest[0] if rest else 1.0
