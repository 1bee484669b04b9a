"""The types that every room shares: the stages from a data file to a score.

`Record → Encoded → StepBatch → loss` in training, `Record → Encoded → Prediction → Scores` in
evaluation. This module imports nothing heavy, so every room may import it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

YES_NO_MAYBE = ("yes", "no", "maybe")
#: the labels of options that are given as a list
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class ImageFile(NamedTuple):
    """An image of a question, as a file.

    Attributes:
        path: the file.
        sha256: of its bytes, in hex.
    """

    path: str
    sha256: str


class ImageSlot(NamedTuple):
    """The place of an image in a prompt.

    Attributes:
        image: the image.
        begin, end: its tokens in the prompt, as a range of indices.
    """

    image: ImageFile
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Record:
    """One question of a data set.

    Attributes:
        id: the question's id, unique within a source (PubMedQA: the PMID as text).
        question: the question without its contexts.
        contexts: the passages to answer it from, in order; may be empty.
        context_labels: the section name of each passage ("METHODS"); empty, or as long as `contexts`.
        options: label → text of the option for multiple choice ({"A": "Aspirin", …}); else empty.
        labels: the possible decisions, in a fixed order (("yes", "no", "maybe"), or the keys of `options`); empty for
            a free answer.
        answer: the right decision (one of `labels`), or the free answer; None where it is unknown.
        long_answer: the rationale to learn after the decision; may be empty. Reveals the answer.
        topics: MeSH headings or other groups of the report.
        subject: the benchmark's subject of the question ("clinical knowledge"), for its own prompt; often empty.
        annotations: setting → decision of the human annotators ({"reasoning_required": "yes", "reasoning_free":
            "no"}). Reveals the answer.
        where: "file:line" (or file and key) for messages.
        aliases: other ids of the same question (its row's key, a column `pmid`), to find test questions.
        images: the question's images, in order; empty for a text question.
    """

    id: str
    question: str
    contexts: tuple[str, ...] = ()
    context_labels: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    labels: tuple[str, ...] = YES_NO_MAYBE
    answer: str | None = None
    long_answer: str = ""
    topics: tuple[str, ...] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)
    where: str = ""
    subject: str = ""
    aliases: tuple[str, ...] = ()
    images: tuple[ImageFile, ...] = ()


class Splits(NamedTuple):
    """The three sets of a source, which share no id."""

    train: list[Record]
    dev: list[Record]
    test: list[Record]


class BadRecord(NamedTuple):
    """An unusable record of a file, which was left out.

    Attributes:
        file: the file.
        line: its line; in JSON, Parquet and Arrow the record's number, from 1.
        why: the fault and the fix, one line.
    """

    file: str
    line: int
    why: str


class Encoded(NamedTuple):
    """A record as token ids, with prompt and completion separate.

    Attributes:
        id: the record's id.
        prompt: token ids of everything before the answer, beginning with the tokenizer's own prefix (BOS).
        completion: token ids of the answer and its end token; empty where the answer is unknown.
        labels: for each of the record's labels, the token ids that follow `prompt` if it is the answer; empty for
            free answers.
        dropped: the number of context tokens that were left out to fit; usually 0.
        images: where the images' tokens are in `prompt`; empty for a text question.
        weight: of each of its completion tokens in the training loss; see `data.batching.loss_terms`.
        smoothing: share of the label token's target that is spread over all labels, 0 to 1.
        label_at: index in `completion` where the label begins; 0 unless the rationale comes first.
        lead: token ids between a rationale that comes first and the label; empty where the label comes first.
    """

    id: str
    prompt: Sequence[int]
    completion: Sequence[int]
    labels: tuple[tuple[int, ...], ...] = ()
    dropped: int = 0
    images: tuple[ImageSlot, ...] = ()
    weight: float = 1.0
    smoothing: float = 0.0
    label_at: int = 0
    lead: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Prediction:
    """The model's scores and generated answer for one question.

    Attributes:
        id: the record's id.
        gold: the right decision, None where it is unknown.
        labels: the possible decisions.
        logprobs: for each label, log p(label | prompt) in nats over the complete vocabulary (the sum over the label's
            tokens); empty where labels were not scored.
        lengths: the number of tokens of each label, for length normalisation.
        text: the text of greedy generation; None where nothing was generated.
        parsed: the decision parsed from `text`; None where there is none.
        context_tokens: prompt length in tokens, for the report's groups.
    """

    id: str
    gold: str | None
    labels: tuple[str, ...]
    logprobs: tuple[float, ...] = ()
    lengths: tuple[int, ...] = ()
    text: str | None = None
    parsed: str | None = None
    context_tokens: int = 0

    @property
    def decision(self) -> str | None:
        """The label with the largest log-likelihood (the first of equals); None where none was scored."""
        if not self.logprobs:
            return None
        return self.labels[max(range(len(self.logprobs)), key=self.logprobs.__getitem__)]

    @property
    def probabilities(self) -> tuple[float, ...]:
        """softmax(logprobs): a distribution over the labels alone, summing to 1."""
        return softmax(self.logprobs)

    @property
    def confidence(self) -> float | None:
        """The probability of `decision` among the labels; None where none was scored."""
        return max(self.probabilities) if self.logprobs else None

    @property
    def label_mass(self) -> float:
        """The total probability of the labels, 0 to 1; the rest belongs to other texts."""
        return min(1.0, sum(math.exp(value) for value in self.logprobs))


def lettered(options: Sequence[str]) -> dict[str, str]:
    """Options that are given as a list, by the labels A, B, C, …; those beyond Z are left out."""
    return dict(zip(LETTERS, options, strict=False))


def softmax(values: Sequence[float], temperature: float = 1.0) -> tuple[float, ...]:
    """softmax(values / temperature), summing to 1; empty for no values.

    The sum is exact (`fsum`), so it does not depend on the order of the values: two questions with the same
    log-likelihoods in another order have exactly the same confidence.
    """
    if not values:
        return ()
    top = max(values)
    weights = [math.exp((value - top) / temperature) for value in values]
    total = math.fsum(weights)
    return tuple(weight / total for weight in weights)
