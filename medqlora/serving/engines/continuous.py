"""Labels and texts by the decode engine: a text begins and ends between any two tokens of the others."""

from collections.abc import Iterable, Mapping, Sequence

import torch

from medqlora.inference.decoding import DecodeEngine, Request, Sampling
from medqlora.inference.decoding.evaluation import Keeping, prompts_in
from medqlora.inference.scoring import Scored, ScoredSequence, score
from medqlora.models.adapters.several import NO_ADAPTER
from medqlora.records import Encoded
from medqlora.serving.engines.line import Waiting
from medqlora.serving.engines.rows import Row
from medqlora.utils.types import Tokenizer

#: why a row ended that is too long for the memory alone
NO_MEMORY = "memory"
#: texts under way that are brought up to date after a step: more take turns, since it takes the time of a pass
WRITTEN = 16
#: share of the rows that is free before waiting ones begin
GATHER = 1 / 16
#: most prompt tokens that go through the model at once: others' texts wait for as long
PREFILL_TOKENS = 8192


class ContinuousTexts:
    """Rows in a decode engine, which nothing else uses. It is the `Limit` of what goes through the model together.

    Args:
        engine: of the model.
        tokenizer: decodes the tokens.
        rows, tokens: most rows, and most tokens of the cache, at once.
    """

    def __init__(self, engine: DecodeEngine, tokenizer: Tokenizer, *, rows: int, tokens: int) -> None:
        self._engine = engine
        self._tokenizer = tokenizer
        self._most, self._tokens = rows, tokens
        #: the engine's number → row
        self._rows: dict[int, Row] = {}
        self._requests: dict[int, Request] = {}
        #: row → tokens that were reported before the memory ran out
        self._reported: dict[Row, int] = {}
        #: rows with tokens that their text lacks, those that wait longest first
        self._unwritten: dict[Row, None] = {}
        self._limit(rows)

    @property
    def rows(self) -> list[Row]:
        """Those that go on."""
        return list(self._rows.values())

    @property
    def prefill_tokens(self) -> int:
        """Most prompt tokens that go through the model at once."""
        return min(PREFILL_TOKENS, self._tokens)

    def score(
        self, examples: Sequence[Encoded], adapters: Sequence[str], rows: Mapping[int, Row]
    ) -> list[Scored]:
        """Scores the labels of each example, and begins the rows: a prompt goes through the model once.

        A row that has no room now is queued, and its prompt goes through the model again when it begins.

        Args:
            examples: packed in passes of `prefill_tokens`.
            adapters: PEFT's name of each example's adapter.
            rows: index of an example → its row, for those whose text is wanted.

        Raises:
            torch.OutOfMemoryError: none of the rows has begun, and others begin again.
        """
        if not self._rows:
            self._limit(self._most)
        begun: set[int] = set()
        names = [_adapter(each) for each in adapters]

        def passes(sequences: Sequence[ScoredSequence]) -> Keeping:
            places = [place for place in prompts_in(sequences, begun) if place.example in rows]
            requests = [_request(rows[place.example]) for place in places]
            free = self._engine.free([len(each.prompt) + each.max_new_tokens for each in requests])
            kept = []
            for number, place, request in zip(
                self._engine.reserve(requests) if free else (), places, requests, strict=False
            ):
                begun.add(place.example)
                self._rows[number], self._requests[number] = rows[place.example], request
                kept.append((number, place.sequence, place.row))
            return Keeping(self._engine, kept, [names[each.example] for each in sequences])

        try:
            scored = score(
                self._engine.decoder,
                examples,
                micro_batch_tokens=self.prefill_tokens,
                packed=True,
                pad_token_id=0,
                device=self._engine.device,
                completions=False,
                passes=passes,
            )
        except BaseException:
            for number in [number for number, row in self._rows.items() if row in rows.values()]:
                self._leave(number)
            self.restart()
            raise
        for index, row in rows.items():
            if index not in begun:
                self._queue(row, _request(row))
        return scored

    def full(self, batch: list[Waiting], following: Waiting) -> bool:
        return sum(len(one.encoded.prompt) for one in (*batch, following)) > self.prefill_tokens

    def held(self, batch: list[Waiting], following: Waiting) -> bool:
        """It waits for the room of its text: its prompt then goes through the model once."""
        if self._engine.waiting:
            return False
        rows = [one.row for one in (*batch, following) if one.job.write]
        return self._engine.free([len(row.prompt) + row.max_new_tokens for row in rows]) < len(rows)

    def restart(self) -> None:
        """Frees the cache: all rows begin again, half as many at once."""
        self._engine.release()
        if self._rows:
            self._begin_again(self._dropped())

    def cancel(self, row: Row) -> None:
        """Ends a row: its slot is free at once."""
        for number, each in self._rows.items():
            if each is row:
                row.finish = "cancelled"
                self._unwritten.pop(row, None)
                self._leave(number)
                self._engine.cancel(number)
                return

    def step(self) -> list[Row]:
        """At most one token for each row. Returns the rows that ended, and the watched ones whose text changed."""
        try:
            events = self._engine.step()
        except torch.OutOfMemoryError:
            return self._again()
        # a row whose prompt was just scored has two events
        news: dict[Row, None] = {}
        for number, tokens, finished in events:
            row = self._rows.get(number)
            if row is None:  # cancelled, or ended by a stop text
                continue
            for token in tokens:
                row.add(token, self._tokenizer)
            if finished == "end":
                row.finish = "stop"
            fresh = len(row.token_ids) > self._reported.get(row, 0)
            if row.ended:
                self._leave(number)
                if finished is None:
                    self._engine.cancel(number)
            if row.ended or (row.watched and fresh):
                news[row] = None
        return self._written(news)

    def _written(self, news: Iterable[Row]) -> list[Row]:
        """Brings the texts of rows up to date that ended, and of `WRITTEN` others: those that waited longest."""
        for row in news:
            self._unwritten[row] = None
        ended = [row for row in self._unwritten if row.ended]
        others = [row for row in self._unwritten if not row.ended]
        written = [*ended, *others[:WRITTEN]]
        for row in written:
            del self._unwritten[row]
            row.write(self._tokenizer)
        return written

    def _again(self) -> list[Row]:
        """Memory ran out, and the engine has dropped all rows: they begin again, half as many at once."""
        dropped = self._dropped()
        failed: list[Row] = []
        if self._at_once == 1 or len(dropped) == 1:
            (first, _), *dropped = dropped
            first.finish = NO_MEMORY
            self._reported.pop(first, None)
            failed.append(first)
        self._begin_again(dropped)
        return failed

    def _dropped(self) -> list[tuple[Row, Request]]:
        dropped = [(row, self._requests[number]) for number, row in self._rows.items()]
        for held in (self._rows, self._requests, self._unwritten):
            held.clear()
        return dropped

    def _begin_again(self, dropped: Sequence[tuple[Row, Request]]) -> None:
        """A text is the same again, and what was reported of it is not reported twice."""
        if len(dropped) > 1:
            self._limit(max(1, min(self._at_once, len(dropped)) // 2))
        for row, request in dropped:
            self._reported[row] = max(self._reported.get(row, 0), len(row.token_ids))
            row.token_ids.clear()
            self._queue(row, request)

    def _queue(self, row: Row, request: Request) -> None:
        number = self._engine.add(request)
        self._rows[number], self._requests[number] = row, request

    def _limit(self, rows: int) -> None:
        self._at_once = rows
        # rows that wait for room begin several at once on a GPU
        gather = GATHER if self._engine.device.type == "cuda" else 0.0
        self._engine.limit(rows=rows, tokens=self._tokens, prefill_tokens=self.prefill_tokens, gather=gather)

    def _leave(self, number: int) -> None:
        del self._requests[number]
        self._reported.pop(self._rows.pop(number), None)


def _adapter(name: str) -> str | None:
    """An adapter's name as the decode engine takes it, from PEFT's."""
    return None if name == NO_ADAPTER else name


def _request(row: Row) -> Request:
    sampling = Sampling(row.temperature, seed=row.seed % 2**63) if row.temperature > 0 else None
    return Request(row.prompt, row.max_new_tokens, row.ends, _adapter(row.adapter), sampling)
