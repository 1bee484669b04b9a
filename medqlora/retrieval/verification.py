"""Verifies claims: retrieves passages for each, asks the adapter whether they support it, and weighs its answers.

A passage supports a claim where the adapter answers yes from it, contradicts it where the adapter answers no, and is
not enough otherwise. Passages that hold too little of the claim's own words are about something else: they are listed,
and decide nothing. Neither do retracted articles.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from medqlora.inference.calibration import Calibration
from medqlora.records import Prediction, Record, softmax
from medqlora.retrieval.claims import as_question, split_claims
from medqlora.retrieval.retriever import Retriever
from medqlora.retrieval.search import Hit
from medqlora.utils.types import Json

Verdict = Literal["supported", "contradicted", "not enough"]
_VERDICTS: tuple[Verdict, ...] = ("supported", "contradicted", "not enough")
#: label of an adapter, in lower case → what it says of a claim
LABELS: Mapping[str, Verdict] = {
    **dict.fromkeys(("yes", "support", "supports", "supported", "true", "entailment"), "supported"),
    **dict.fromkeys(
        (
            "no",
            "contradict",
            "contradicts",
            "contradicted",
            "refute",
            "refutes",
            "refuted",
            "false",
            "contradiction",
        ),
        "contradicted",
    ),
    **dict.fromkeys(
        ("maybe", "not enough", "not enough info", "not_enough_info", "nei", "neutral", "unknown"),
        "not enough",
    ),
}
#: a passage decides where it holds this share of what the best passage holds of the claim, and this share at all
RELEVANT, LEAST_COVERAGE = 0.8, 0.35
#: a verdict needs this probability, of the best passage on its side
THRESHOLD = 0.5
#: two sides nearer to each other than this are a conflict without a verdict
CLEAR = 0.15


class Predicts(Protocol):
    """The part of `medqlora.inference.Predictor` that is used."""

    labels: tuple[str, ...]
    calibration: Calibration | None

    def score_labels(self, records: Sequence[Record]) -> list[Prediction]:
        """Label log-likelihoods, in order, without generated text."""


class PassageVerdict(NamedTuple):
    """What one passage says of a claim.

    Attributes:
        hit: the passage.
        verdict: the adapter's likeliest answer from it.
        probabilities: of supported, contradicted and not enough.
        decides: whether it counts: relevant, and not retracted.
    """

    hit: Hit
    verdict: Verdict
    probabilities: dict[str, float]
    decides: bool


@dataclass(frozen=True)
class ClaimVerdict:
    """What the literature says of a claim.

    Attributes:
        claim: the sentence.
        verdict: of the passages that decide.
        confidence: probability of the verdict by the passage that decides it.
        conflicting: passages of both sides reach the threshold.
        passages: each passage's own verdict, best match first.
    """

    claim: str
    verdict: Verdict
    confidence: float
    conflicting: bool
    passages: tuple[PassageVerdict, ...]

    def to_json(self) -> dict[str, Json]:
        """Plain values, with the provenance of each passage."""
        return {
            "claim": self.claim,
            "verdict": self.verdict,
            "confidence": self.confidence,
            "conflicting": self.conflicting,
            "passages": [
                {
                    "number": number,
                    "verdict": one.verdict,
                    "probabilities": dict(one.probabilities),
                    "decides": one.decides,
                    "coverage": one.hit.coverage,
                    **one.hit.passage.provenance(),
                    "text": one.hit.passage.text,
                }
                for number, one in enumerate(self.passages, 1)
            ],
        }


class Verifier:
    """Verifies claims with a loaded model.

    Args:
        predictor: scores the labels; each of its labels has to be one of `LABELS`.
        retriever: finds the passages; None verifies against given passages alone.
    """

    def __init__(self, predictor: Predicts, retriever: Retriever | None = None) -> None:
        self.predictor = predictor
        self.retriever = retriever

    def verify(self, text: str) -> list[ClaimVerdict]:
        """The verdict on each claim of a text.

        Raises:
            InputError: the index is damaged, or a text can't be scored.
        """
        assert self.retriever is not None
        claims = [claim.text for claim in split_claims(text)]
        found = [self.retriever.retrieve(Record("claim", claim)).hits for claim in claims]
        return self._verdicts(claims, found)

    def verify_against(self, text: str, hits: Sequence[Hit]) -> list[ClaimVerdict]:
        """The verdict of the given passages on each claim of a text: an answer against its own sources."""
        claims = [claim.text for claim in split_claims(text)]
        return self._verdicts(claims, [list(hits)] * len(claims), relevant=0.0)

    def _verdicts(
        self, claims: Sequence[str], found: Sequence[Sequence[Hit]], relevant: float = RELEVANT
    ) -> list[ClaimVerdict]:
        check = ClaimCheck(claims, found, self.predictor.labels, relevant)
        return check.verdicts(self.predictor.score_labels(check.records), self.predictor.calibration)


class ClaimCheck:
    """Claims with their passages: the questions that decide them, and their verdicts once those are scored.

    Args:
        claims: sentences.
        found: the passages of each.
        labels: the adapter's; each is one of `LABELS`.
        relevant: as of `aggregate`.

    Attributes:
        records: a question for each claim and passage.
    """

    def __init__(
        self,
        claims: Sequence[str],
        found: Sequence[Sequence[Hit]],
        labels: tuple[str, ...],
        relevant: float = RELEVANT,
    ) -> None:
        self._claims, self._found, self._relevant = claims, found, relevant
        self._asked = [as_question(claim, labels) for claim in claims]
        self.records = [
            Record(f"{number}.{place}", one.question, (hit.passage.text or hit.passage.title,), labels=labels)
            for number, (one, hits) in enumerate(zip(self._asked, found, strict=True))
            for place, hit in enumerate(hits)
        ]

    def verdicts(
        self, predictions: Sequence[Prediction], calibration: Calibration | None = None
    ) -> list[ClaimVerdict]:
        """The verdict on each claim, from the label scores of `records`."""
        scored = {one.id: one for one in predictions}
        verdicts = []
        for number, (claim, one, hits) in enumerate(zip(self._claims, self._asked, self._found, strict=True)):
            own = [scored[f"{number}.{place}"] for place in range(len(hits))]
            shares = [_probabilities(prediction, calibration, one.negated) for prediction in own]
            verdicts.append(aggregate(claim, hits, shares, self._relevant))
        return verdicts


def _probabilities(
    prediction: Prediction, calibration: Calibration | None, negated: bool
) -> dict[str, float]:
    covered = calibration is not None and calibration.covers(prediction)
    temperature = calibration.temperature if covered and calibration is not None else 1.0
    shares: dict[str, float] = dict.fromkeys(_VERDICTS, 0.0)
    for label, share in zip(prediction.labels, softmax(prediction.logprobs, temperature), strict=True):
        shares[LABELS[label.casefold()]] += share
    if negated:
        shares["supported"], shares["contradicted"] = shares["contradicted"], shares["supported"]
    return shares


def unfit_labels(labels: Sequence[str]) -> str | None:
    """The labels that say nothing of a claim, in words; None where each says something."""
    strange = [label for label in labels if label.casefold() not in LABELS]
    return None if labels and not strange else ", ".join(strange) or "none (free answers)"


def aggregate(
    claim: str, hits: Sequence[Hit], shares: Sequence[dict[str, float]], relevant: float = RELEVANT
) -> ClaimVerdict:
    """The verdict on a claim from those of its passages.

    Each side counts with its most probable passage. The higher side wins where it reaches `THRESHOLD` and the other
    doesn't, or is `CLEAR` below it; otherwise there is not enough.

    Args:
        claim: the sentence.
        hits: the passages, best match first.
        shares: for each, the probabilities of supported, contradicted and not enough.
        relevant: a passage decides with at least this share of the best coverage.
    """
    best = max((hit.coverage for hit in hits), default=0.0)
    least = max(relevant * best, LEAST_COVERAGE) if relevant else 0.0
    passages = []
    for hit, share in zip(hits, shares, strict=True):
        verdict = max(_VERDICTS, key=share.__getitem__)
        decides = hit.coverage >= least and not hit.passage.retracted
        passages.append(PassageVerdict(hit, verdict, share, decides))
    side = {
        name: max((one.probabilities[name] for one in passages if one.decides), default=0.0)
        for name in ("supported", "contradicted")
    }
    winner: Verdict = "supported" if side["supported"] >= side["contradicted"] else "contradicted"
    loser = "contradicted" if winner == "supported" else "supported"
    conflicting = side[loser] >= THRESHOLD
    if side[winner] >= THRESHOLD and (not conflicting or side[winner] - side[loser] >= CLEAR):
        return ClaimVerdict(claim, winner, side[winner], conflicting, tuple(passages))
    unsure = max((one.probabilities["not enough"] for one in passages if one.decides), default=1.0)
    return ClaimVerdict(claim, "not enough", unsure, conflicting, tuple(passages))
