"""Texts by the decode engine: a text begins and ends between any two tokens of the others."""

import torch

from medqlora.inference.decoding import DecodeEngine, Request, Sampling
from medqlora.models.adapters.several import NO_ADAPTER
from medqlora.serving.engines.rows import Row
from medqlora.utils.types import Tokenizer

#: why a row ended that is too long for the memory alone
NO_MEMORY = "memory"


class ContinuousTexts:
    """Rows in a decode engine, which nothing else uses.

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
        self._limit(rows)

    @property
    def rows(self) -> list[Row]:
        """Those that go on."""
        return list(self._rows.values())

    def add(self, row: Row, end_token_ids: tuple[int, ...]) -> None:
        """Queues a row; it begins at one of the next steps."""
        if not self._rows:
            self._limit(self._most)
        sampling = None
        if row.temperature > 0:
            sampling = Sampling(row.temperature, seed=row.seed % 2**63)
        adapter = None if row.adapter == NO_ADAPTER else row.adapter
        self._queue(row, Request(row.prompt, row.max_new_tokens, end_token_ids, adapter, sampling))

    def cancel(self, row: Row) -> None:
        """Ends a row: its slot is free at once."""
        for number, each in self._rows.items():
            if each is row:
                row.finish = "cancelled"
                self._leave(number)
                self._engine.cancel(number)
                return

    def step(self) -> list[Row]:
        """At most one token for each row. Returns the rows that ended, and the watched ones whose text changed."""
        try:
            events = self._engine.step()
        except torch.OutOfMemoryError:
            return self._again()
        news = []
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
                row.write(self._tokenizer)
                news.append(row)
        return news

    def _again(self) -> list[Row]:
        """Memory ran out, and the engine has dropped all rows: they begin again, half as many at once.

        A text is the same again, and what was reported of it is not reported twice.
        """
        dropped = [(row, self._requests[number]) for number, row in self._rows.items()]
        self._rows.clear()
        self._requests.clear()
        failed: list[Row] = []
        if self._at_once == 1 or len(dropped) == 1:
            (first, _), *dropped = dropped
            first.finish = NO_MEMORY
            self._reported.pop(first, None)
            failed.append(first)
        else:
            self._limit(max(1, min(self._at_once, len(dropped)) // 2))
        for row, request in dropped:
            self._reported[row] = max(self._reported.get(row, 0), len(row.token_ids))
            row.token_ids.clear()
            self._queue(row, request)
        return failed

    def _queue(self, row: Row, request: Request) -> None:
        number = self._engine.add(request)
        self._rows[number], self._requests[number] = row, request

    def _limit(self, rows: int) -> None:
        self._at_once = rows
        self._engine.limit(rows=rows, tokens=self._tokens, prefill_tokens=self._tokens)

    def _leave(self, number: int) -> None:
        del self._requests[number]
        self._reported.pop(self._rows.pop(number), None)
