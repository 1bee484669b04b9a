"""Generated texts in an evaluation: the prompts' keys and values are kept from the pass that scores the labels."""

from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from medqlora.data.batching.packing import MicroBatch
from medqlora.inference.decoding.engine import DecodeEngine
from medqlora.inference.decoding.requests import ACTIVE, NewTokens, Request, Sampling
from medqlora.inference.scoring import Passes, ScoredSequence
from medqlora.records import Encoded
from medqlora.utils.console import say

_Scores = TypeVar("_Scores")
#: (index of an example, its next token)
OnToken = Callable[[int, int], None]


@dataclass(frozen=True)
class CacheLimits:
    """How many texts are generated at once.

    Attributes:
        rows: texts.
        tokens: of the cache; None for no limit.
        prefill_tokens: prompt tokens that go through the model at once.
    """

    rows: int
    tokens: int | None
    prefill_tokens: int


class TextWriter:
    """Generates a text for each of a group of examples.

    Args:
        engine: of the model; no other requests are in it.
        limits: called at the start of each group with `engine` and `max_new_tokens`: free memory differs from one to
            the next.
        max_new_tokens, end_token_ids, sampling, adapter: as of `Request`.
    """

    def __init__(
        self,
        engine: DecodeEngine,
        limits: Callable[[DecodeEngine, int], CacheLimits],
        *,
        max_new_tokens: int,
        end_token_ids: Sequence[int],
        sampling: Sampling | None = None,
        adapter: str | None = ACTIVE,
    ) -> None:
        self._engine = engine
        self._limits = limits
        self._max_new_tokens = max_new_tokens
        self._ends = tuple(end_token_ids)
        self._sampling = sampling
        self._adapter = adapter

    def write(
        self,
        examples: Sequence[Encoded],
        score: Callable[[Passes], _Scores],
        *,
        on_token: OnToken = lambda example, token: None,
        on_end: Callable[[int], None] = lambda count: None,
    ) -> tuple[_Scores, list[list[int]]]:
        """The result of `score`, and the new tokens of each example.

        Args:
            examples: in the order of the results.
            score: scores the same examples; each of its passes asks for its decoder.
            on_token: called with the index of an example and its next token, as soon as that is chosen. An error that
                it raises ends the generation. Where memory runs out, the texts begin again.
            on_end: called with the number of texts that are finished.
        """
        limits = self._limits(self._engine, self._max_new_tokens)
        rows = max(1, round(limits.rows * self._engine.share))
        while True:
            tokens = None if limits.tokens is None else round(limits.tokens * self._engine.share)
            try:
                group = _Group(
                    self._engine, [self._request(example) for example in examples], on_token, on_end
                )
                return self._write(group, score, CacheLimits(rows, tokens, limits.prefill_tokens))
            except torch.OutOfMemoryError:
                if rows == 1:
                    raise
            self._engine.share /= 2
            rows = max(1, min(rows, len(examples)) // 2)
            say(f"Out of memory in generation: the same questions again, at most {rows} texts at once")

    def _write(
        self, group: "_Group", score: Callable[[Passes], _Scores], limits: CacheLimits
    ) -> tuple[_Scores, list[list[int]]]:
        engine, tokens, prefill = self._engine, limits.tokens, limits.prefill_tokens
        engine.limit(rows=limits.rows, tokens=tokens, prefill_tokens=prefill, gather=0.25)
        most = engine.room(group.requests)
        if (fewer := engine.fastest(most)) < most:
            engine.limit(rows=fewer, tokens=tokens, prefill_tokens=prefill, gather=0.25)
        engine.expect(group.requests)
        try:
            scores = score(group.decoder_of)
            group.finish()
        except BaseException:
            engine.release()  # rows without keys must not be continued
            raise
        finally:
            engine.expect(())
        return scores, group.tokens

    def _request(self, example: Encoded) -> Request:
        return Request(example.prompt, self._max_new_tokens, self._ends, self._adapter, self._sampling)


@dataclass
class _Group:
    """The examples of one call: `requests` in their order."""

    engine: DecodeEngine
    requests: Sequence[Request]
    on_token: OnToken
    on_end: Callable[[int], None]
    #: the request's number in the engine → index of the example
    _index: dict[int, int] = field(default_factory=dict)
    tokens: list[list[int]] = field(init=False)
    _finished: int = 0

    def __post_init__(self) -> None:
        self.tokens = [[] for _ in self.requests]

    def decoder_of(self, sequences: Sequence[ScoredSequence]) -> "Keeping":
        """The decoder of a pass over these sequences: it keeps the prompts that are there for the first time."""
        places = prompts_in(sequences, set(self._index.values()))
        numbers = self._reserve([self.requests[place.example] for place in places])
        kept: list[tuple[int, int, int]] = []
        for number, place in zip(numbers, places, strict=False):
            self._index[number] = place.example
            kept.append((number, place.sequence, place.row))
        return Keeping(self.engine, kept, [self.requests[each.example].adapter for each in sequences])

    def _reserve(self, requests: Sequence[Request]) -> list[int]:
        """Slots for these rows, once enough others have ended; for as many as the cache can hold together."""
        if not requests:
            return []
        wanted = self.engine.room(requests)
        while not (numbers := self.engine.reserve(requests, wanted)):
            if not self.engine.busy:
                break
            self._take(self.engine.step())
        return numbers

    def finish(self) -> None:
        """Generates what is left."""
        begun = set(self._index.values())
        for example, request in enumerate(self.requests):
            if example not in begun:
                self._index[self.engine.add(request)] = example
        self._take(self.engine.run())

    def _take(self, events: Iterable[NewTokens]) -> None:
        for event in events:
            example = self._index[event.id]
            self.tokens[example] += event.tokens
            for token in event.tokens:
                self.on_token(example, token)
            if event.finished is not None:
                self._finished += 1
                self.on_end(self._finished)


class PromptPlace(NamedTuple):
    """Where a pass holds an example's prompt.

    Attributes:
        example: its index.
        sequence: index of the sequence.
        row: index of the prompt's last token in the pass's rows.
    """

    example: int
    sequence: int
    row: int


def prompts_in(sequences: Sequence[ScoredSequence], begun: Container[int]) -> list[PromptPlace]:
    """The first place of each example's prompt in a pass, by example; those in `begun` are left out."""
    new = {sequence.example: place for place, sequence in reversed([*enumerate(sequences)])}
    first = [0]
    for sequence in sequences:
        first.append(first[-1] + len(sequence.encoded.completion))
    return [
        PromptPlace(example, place, first[place])
        for example, place in sorted(new.items())
        if example not in begun
    ]


class OneAdapter:
    """A decoder that scores with one adapter of an engine, or with none.

    Args:
        engine: of the model.
        adapter: as of `Request`.
    """

    takes_any_mask = False

    def __init__(self, engine: DecodeEngine, adapter: str | None) -> None:
        self._engine, self._adapter = engine, adapter

    def hidden(self, batch: MicroBatch, rows: Tensor) -> Tensor:
        return self._engine.prefill(batch, rows, (), [self._adapter] * len(batch.lengths))

    def logits(self, hidden: Tensor) -> Tensor:
        return self._engine.decoder.logits(hidden)


class Keeping:
    """A decoder for one scoring pass that keeps keys and values.

    Args:
        engine: holds the cache.
        kept, adapters: as in `DecodeEngine.prefill`.
    """

    takes_any_mask = False

    def __init__(
        self,
        engine: DecodeEngine,
        kept: Sequence[tuple[int, int, int]],
        adapters: Sequence[str | None] | None = None,
    ) -> None:
        self._engine, self._kept, self._adapters = engine, kept, adapters

    def hidden(self, batch: MicroBatch, rows: Tensor) -> Tensor:
        return self._engine.prefill(batch, rows, self._kept, self._adapters)

    def logits(self, hidden: Tensor) -> Tensor:
        return self._engine.decoder.logits(hidden)
