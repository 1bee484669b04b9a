"""What a training run will read, before it runs: sizes, labels, lengths, duplicates, masks and packing.

A pure function of records and their token ids; `report.look_page` and `report.look_console` show it.
"""

import itertools
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypedDict

from medqlora.data.batching.loader import StepLoader
from medqlora.data.batching.packing import MicroBatch, pack
from medqlora.data.checks import content
from medqlora.evaluation.near_duplicates import MOST, NearPair, near_duplicates
from medqlora.records import Encoded, Record
from medqlora.utils.types import Tokenizer

#: set → its words in tables
SET_NAMES = {"train": "train", "dev": "validation", "test": "test"}
#: optimizer steps whose packing is shown
STEPS_SHOWN = 3
#: bytes that are no text on their own decode to this character
_NO_TEXT = "�"


class SetFacts(TypedDict):
    """One set in figures; lengths are in tokens."""

    questions: int
    labels: dict[str, int]
    prompt_mean: float
    prompt_median: float
    prompt_longest: int
    completion_mean: float
    completion_longest: int
    shortened: int
    dropped_tokens: int
    without_context: int
    repeated: int


class Pair(TypedDict):
    """Two questions that are the same or nearly so; `similarity` is 1 for equal texts."""

    first: str
    second: str
    first_set: str
    second_set: str
    similarity: float


class LookFacts(TypedDict):
    """The figures of `medqlora data --json`."""

    source: str
    prompt: str
    max_prompt_tokens: int
    batch_size: int
    micro_batch_tokens: int
    sets: dict[str, SetFacts]
    same: list[Pair]
    nearly_same: list[Pair]
    compared: int
    without_context: list[str]
    remarks: list[str]


class Token(NamedTuple):
    """A token of an example: its text, and whether it is learned, which means that it carries loss."""

    text: str
    learned: bool


class Row(NamedTuple):
    """A micro-batch of a step: (tokens without loss, learned tokens) of each example in it."""

    examples: tuple[tuple[int, int], ...]

    @property
    def tokens(self) -> int:
        return sum(map(sum, self.examples))

    @property
    def learned(self) -> int:
        return sum(learned for _, learned in self.examples)


@dataclass(frozen=True)
class DataLook:
    """The sets of a run.

    Args:
        source: name of the data set.
        prompt: name of the prompt.
        max_prompt_tokens: limit of a prompt.
        batch_size: examples in a step.
        micro_batch_tokens: tokens that go through the model at once.
        seed: of the order of the examples.
        records: set → its records.
        encoded: set → the same as token ids.
        remarks: lines of the readers.
        packed: whether rows hold several examples.
    """

    source: str
    prompt: str
    max_prompt_tokens: int
    batch_size: int
    micro_batch_tokens: int
    seed: int
    records: Mapping[str, Sequence[Record]]
    encoded: Mapping[str, Sequence[Encoded]]
    remarks: Sequence[str] = field(default_factory=tuple)
    packed: bool = True

    def facts(self) -> LookFacts:
        """All figures."""
        listed = [(name, record) for name, records in self.records.items() for record in records]
        records = [record for _, record in listed]
        same = _same(listed)
        return {
            "source": self.source,
            "prompt": self.prompt,
            "max_prompt_tokens": self.max_prompt_tokens,
            "batch_size": self.batch_size,
            "micro_batch_tokens": self.micro_batch_tokens,
            "sets": {
                name: set_facts(records, self.encoded[name])
                for name, records in self.records.items()
                if records
            },
            "same": same,
            "nearly_same": [_pair(listed, pair) for pair in near_duplicates(records)],
            "compared": min(len(records), MOST),
            "without_context": [record.id for record in records if without_context(record)],
            "remarks": list(self.remarks),
        }

    def first_steps(self, count: int = STEPS_SHOWN) -> list[list[Row]]:
        """The micro-batches of the first optimizer steps, as the loader of `fit` makes them."""
        examples = self.encoded["train"]
        loader = StepLoader(
            examples, self.batch_size, self.micro_batch_tokens, packed=self.packed, seed=self.seed
        )
        return [[_row(micro) for micro in step.micro_batches] for step in itertools.islice(loader, count)]


def set_facts(records: Sequence[Record], encoded: Sequence[Encoded]) -> SetFacts:
    """The figures of one set, which is not empty."""
    answers = Counter(record.answer for record in records if record.labels)
    labels = dict.fromkeys(label for record in records for label in record.labels)
    prompts = [len(example.prompt) for example in encoded]
    completions = [len(example.completion) for example in encoded]
    return {
        "questions": len(records),
        "labels": {label: answers[label] for label in labels},
        "prompt_mean": statistics.fmean(prompts),
        "prompt_median": statistics.median(prompts),
        "prompt_longest": max(prompts),
        "completion_mean": statistics.fmean(completions),
        "completion_longest": max(completions),
        "shortened": sum(example.dropped > 0 for example in encoded),
        "dropped_tokens": sum(example.dropped for example in encoded),
        "without_context": sum(map(without_context, records)),
        "repeated": len(records) - len({content(record) for record in records}),
    }


def without_context(record: Record) -> bool:
    """Whether a question has no context, or contexts of white space alone."""
    return not any(context.strip() for context in record.contexts)


def token_mask(example: Encoded, tokenizer: Tokenizer) -> list[Token]:
    """The tokens of an example in their order, with the loss mask of the row that training makes of it.

    The mask is read from that row: the positions that predict a token with loss.
    """
    micro = pack([example])
    learned = {int(position) + 1 for position in micro.rows}
    ids = micro.input_ids[0].tolist()
    return [Token(_token_text(tokenizer, token), place in learned) for place, token in enumerate(ids)]


def shown_examples(records: Sequence[Record], encoded: Sequence[Encoded], count: int) -> list[int]:
    """Indices of telling examples: the longest, the median and the shortest, then the first of each label."""
    order = sorted(range(len(encoded)), key=lambda index: (_tokens(encoded[index]), index))
    chosen = [order[-1], order[len(order) // 2], order[0]] if order else []
    shortened = next((index for index, example in enumerate(encoded) if example.dropped), None)
    chosen += [] if shortened is None else [shortened]
    seen = {records[index].answer for index in chosen}
    for index, record in enumerate(records):
        if record.labels and record.answer not in seen:
            seen.add(record.answer)
            chosen.append(index)
    return list(dict.fromkeys(chosen))[:count]


def _tokens(example: Encoded) -> int:
    return len(example.prompt) + len(example.completion)


def _token_text(tokenizer: Tokenizer, token: int) -> str:
    """The token's text; the tokenizer's own notation of the bytes where they are only part of a character."""
    text = tokenizer.decode([token], skip_special_tokens=False)
    return tokenizer.convert_ids_to_tokens(token) if _NO_TEXT in text or not text else text


def _row(micro: MicroBatch) -> Row:
    """The examples of a packed or padded micro-batch, in their order."""
    ends = list(itertools.accumulate(micro.lengths.tolist()))
    padded = micro.input_ids.shape[0] > 1
    learned = [0] * len(ends)
    for position in micro.rows.tolist():
        index = position // micro.input_ids.shape[1] if padded else _owner(ends, position)
        learned[index] += 1
    lengths = micro.lengths.tolist()
    return Row(tuple((length - count, count) for length, count in zip(lengths, learned, strict=True)))


def _owner(ends: Sequence[int], position: int) -> int:
    return next(index for index, end in enumerate(ends) if position < end)


def _same(listed: Sequence[tuple[str, Record]]) -> list[Pair]:
    """Every further question with the texts of an earlier one, beside that one."""
    first: dict[tuple[str, ...], tuple[str, Record]] = {}
    pairs: list[Pair] = []
    for name, record in listed:
        known, twin = first.setdefault(content(record), (name, record))
        if twin is not record:
            pairs.append(
                {
                    "first": twin.id,
                    "second": record.id,
                    "first_set": known,
                    "second_set": name,
                    "similarity": 1.0,
                }
            )
    return pairs


def _pair(listed: Sequence[tuple[str, Record]], pair: NearPair) -> Pair:
    (first_set, first), (second_set, second) = listed[pair.first], listed[pair.second]
    return {
        "first": first.id,
        "second": second.id,
        "first_set": first_set,
        "second_set": second_set,
        "similarity": pair.similarity,
    }
