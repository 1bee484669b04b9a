"""The words that the whole project shares: what flows from a data file to a score.

`Record → Encoded → StepBatch → loss` in training, `Record → Encoded → Prediction → Scores` in
evaluation. This module imports nothing heavy, so every room may import it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

YES_NO_MAYBE = ("yes", "no", "maybe")


@dataclass(frozen=True, slots=True)
class Record:
    """One question as the world has it.

    Attributes:
        id: the question's identity, unique within a source (PubMedQA: the PMID as text).
        question: the question alone.
        contexts: the passages that it is to be answered from, in order; may be empty.
        context_labels: the name of each passage's section ("METHODS"); empty, or as long as `contexts`.
        options: for multiple choice, label → text of the option ({"A": "Aspirin", …}); else empty.
        labels: the decisions that are possible, in a fixed order (("yes", "no", "maybe"), the keys of
            `options`); empty for a free answer.
        answer: the right decision (one of `labels`), or the free answer; None where it isn't known.
        long_answer: the rationale to be learned after the decision; may be empty. Gives the answer away.
        topics: MeSH headings or other groups to report by.
        subject: what field the benchmark says the question is of ("clinical knowledge"); its own prompt
            says it to the model. Empty for most.
        annotations: what human annotators decided, by the setting they worked in
            ({"reasoning_required": "yes", "reasoning_free": "no"}). Gives the answer away.
        where: "file:line" (or file and key) for messages.
        aliases: other ids of the same question (its row's key, a column `pmid`), to find test questions by.
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


class Splits(NamedTuple):
    """What a source reads: the three sets, which share no id."""

    train: list[Record]
    dev: list[Record]
    test: list[Record]


class BadRecord(NamedTuple):
    """A record of a file that could not be used and was left out.

    Attributes:
        file: the file.
        line: its line; where a record is no line of its own (JSON, Parquet, Arrow), its number from 1.
        why: what is wrong with it and the fix, one line.
    """

    file: str
    line: int
    why: str


class Encoded(NamedTuple):
    """A record as token ids, prompt and completion kept apart.

    Attributes:
        id: the record's id.
        prompt: token ids of everything before the answer, beginning with the tokenizer's own prefix (BOS).
        completion: token ids of the answer and its end token; empty where the answer isn't known.
        labels: for each of the record's labels, the token ids that would follow `prompt` if it were the
            answer; empty for free answers.
        dropped: how many tokens of the context were left out to fit; 0 for most.
    """

    id: str
    prompt: Sequence[int]
    completion: Sequence[int]
    labels: tuple[tuple[int, ...], ...] = ()
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the model said of one question.

    Attributes:
        id: the record's id.
        gold: the right decision, None where it isn't known.
        labels: the possible decisions.
        logprobs: for each label, log p(label | prompt) in nats over the whole vocabulary (the sum over
            the label's tokens); empty where labels were not scored.
        lengths: the number of tokens of each label; for length normalisation.
        text: what greedy generation wrote; None where nothing was generated.
        parsed: the decision read from `text`; None where none could be read.
        context_tokens: prompt length in tokens, to report by.
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
        """The label of the largest log-likelihood (the first of equals), None where none was scored."""
        if not self.logprobs:
            return None
        return self.labels[max(range(len(self.logprobs)), key=self.logprobs.__getitem__)]

    @property
    def probabilities(self) -> tuple[float, ...]:
        """softmax(logprobs): a distribution over the labels alone, summing to 1."""
        return softmax(self.logprobs)

    @property
    def confidence(self) -> float | None:
        """The probability of `decision` among the labels, None where none was scored."""
        return max(self.probabilities) if self.logprobs else None

    @property
    def label_mass(self) -> float:
        """The probability that the model gives to the labels together, 0 to 1; the rest is outside them."""
        return min(1.0, sum(math.exp(value) for value in self.logprobs))


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
