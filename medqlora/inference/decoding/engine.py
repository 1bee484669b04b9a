"""The decode engine: requests in, tokens out, with continuous batching."""

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice

import torch
from torch import Tensor

from medqlora.data.batching.packing import MicroBatch, pack
from medqlora.fused import FusedDecoder
from medqlora.fused.decoder import StoreKeys
from medqlora.fused.decoding import DecodePass, KeyValueCache
from medqlora.fused.decoding.decode_pass import bucket, kernels_for
from medqlora.fused.decoding.graphs import Graphs
from medqlora.inference.decoding.layout import Layout
from medqlora.inference.decoding.passes import Flight, Passes
from medqlora.inference.decoding.requests import ACTIVE, Finished, NewTokens, Request
from medqlora.inference.decoding.row import Row
from medqlora.inference.decoding.sampling import Chooser, choose
from medqlora.records import Encoded

#: a row of the cache's table on a GPU has room for a multiple of so many tokens: few sizes, and few graphs
_LENGTH_MULTIPLE = 256


class DecodeEngine:
    """Continues prompts, many at a time; see `medqlora.inference.decoding`.

    Args:
        decoder: the model. Several PEFT adapters may be loaded; a request names its own.
        rows: most rows at once.
        tokens: most tokens of the cache, where each row takes as many as it can get; a single row may exceed it. None
            for no limit.
        prefill_tokens: most prompt tokens that go through the model at once; a longer prompt goes alone.
        gather: waiting requests begin when this share of the rows is free: fewer and fuller prefills. 0 begins at once.

    Attributes:
        device: the model's.
        share: of the limits that an evaluation uses; it lowers it where memory runs out.
    """

    def __init__(
        self,
        decoder: FusedDecoder,
        *,
        rows: int = 16,
        tokens: int | None = None,
        prefill_tokens: int = 2048,
        gather: float = 0.0,
    ) -> None:
        self.decoder = decoder
        self.share = 1.0
        #: blocks that will be needed at a time, and the tokens of the longest row: see `expect`
        self._expected = (0, 0)
        self.device = decoder.norm[0].device
        self._cache = KeyValueCache(
            len(decoder.layers), decoder.layers[0].first.heads, decoder.dtype, self.device
        )
        self._pass = DecodePass(decoder, self._cache, Graphs(self.device), kernels_for(decoder, self._cache))
        self._passes = Passes(decoder, self._cache, self._pass)
        #: whether a pass is started before the host has the tokens of the one before: a GPU then waits for no host
        self._ahead = self.device.type == "cuda"
        #: the pass that was started ahead; its rows may have ended meanwhile
        self._flight: Flight | None = None
        self._waiting: deque[Row] = deque()
        #: by slot: slots 0 to n - 1 are in use
        self._rows: list[Row] = []
        self._events: list[NewTokens] = []
        self._next_id = 0
        self.limit(rows=rows, tokens=tokens, prefill_tokens=prefill_tokens, gather=gather)

    # ---- the interface ---------------------------------------------------------------------------

    def limit(self, *, rows: int, tokens: int | None, prefill_tokens: int, gather: float = 0.0) -> None:
        """Changes the limits, for rows that begin from now on; arguments as of the constructor."""
        self._layout = Layout(rows, tokens)
        self._prefill_tokens = prefill_tokens
        self._gather = gather

    @property
    def busy(self) -> bool:
        """Whether a request is waiting or being continued, or an event was not returned yet."""
        return bool(self._waiting or self._events or self._rows)

    @property
    def waiting(self) -> int:
        """Number of requests that wait for room."""
        return len(self._waiting)

    @property
    def token_bytes(self) -> int:
        """The bytes of one token in the cache."""
        return self._cache.token_bytes

    @property
    def cache_bytes(self) -> int:
        """The bytes of the present cache."""
        return self._cache.nbytes

    def add(self, request: Request) -> int:
        """Queues a request, and returns its number.

        Raises:
            ValueError: the model holds no adapter of that name.
        """
        row = self._row(request)
        self._waiting.append(row)
        return row.id

    def cancel(self, number: int) -> bool:
        """Ends a request; the next step reports it as cancelled. False where it has ended already."""
        for row in (*self._waiting, *self._rows):
            if row.id == number:
                if row.slot < 0:
                    self._waiting.remove(row)
                self._end(row, (), "cancelled")
                return True
        return False

    @torch.no_grad()
    def step(self) -> list[NewTokens]:
        """One prefill where waiting requests can begin, otherwise a new token for each row; the events since.

        Whatever the model raises, such as torch.OutOfMemoryError, comes through; all requests are dropped then.
        """
        try:
            begins = self._begins()
            if begins:
                self._settle()
            if not (begins and self._admit()) and self._rows:
                self._decode()
        except BaseException:
            self.release()  # rows without keys must not be continued
            raise
        events, self._events = self._events, []
        return events

    def run(self) -> Iterator[NewTokens]:
        """Steps until nothing is left; requests may be added and cancelled between two events."""
        while self.busy:
            yield from self.step()

    def release(self) -> None:
        """Drops all requests, and frees the cache and the graphs."""
        self._waiting.clear()
        self._events.clear()
        self._rows.clear()
        self._flight = None
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)  # a pass that was started reads the buffers
        self._cache.release()
        self._pass.resize(0)

    # ---- with a pass that also scores ------------------------------------------------------------

    def expect(self, requests: Sequence[Request]) -> None:
        """Tells which requests will come: the cache then need not grow step by step. None for an unknown number."""
        needs = [request.tokens for request in requests]
        self._expected = (self._layout.together(needs), max(needs, default=0))

    def room(self, requests: Sequence[Request]) -> int:
        """How many of the requests, from the first on, have room together where nothing else is in the cache."""
        return self._layout.fitting([request.tokens for request in requests])

    def fastest(self, count: int) -> int:
        """The number of rows up to `count` with which most tokens a second are written."""
        return self._pass.fastest(count)

    def reserve(self, requests: Sequence[Request], at_least: int = 1) -> list[int]:
        """Slots for as many of the requests as have room now, in order; `prefill` comes next.

        Returns:
            The numbers of these requests; none, and no slot is taken, where fewer than `at_least` have room.
        """
        if self._fitting([request.tokens for request in requests]) < at_least:  # asked again after each step
            return []
        self._settle()
        rows = [self._row(request) for request in requests]
        return [row.id for row in rows[: self._place(rows, at_least)]]

    def free(self, needs: Sequence[int]) -> int:
        """How many rows of these numbers of tokens could begin now, in order; none while others wait."""
        return 0 if self._waiting else self._fitting(needs)

    @torch.no_grad()
    def prefill(
        self,
        batch: MicroBatch,
        rows: Tensor,
        kept: Sequence[tuple[int, int, int]],
        adapters: Sequence[str | None] | None = None,
    ) -> Tensor:
        """`FusedDecoder.hidden`; keys and values of prompts go to the cache.

        A prompt's first new token is among the events of the next step.

        Args:
            batch: packed sequences, each a prompt with something behind it.
            rows: as in `hidden`.
            kept: (number from `reserve`, index of its sequence, index in `rows` of the prompt's last token).
            adapters: of each sequence, as of `Request`; without them, the adapter that is active runs all.

        Raises:
            ValueError: the model holds no adapter of that name.
        """
        by_id = {row.id: row for row in self._rows}
        chosen = [by_id[number] for number, _, _ in kept]
        store = self._store(
            batch, [(row, sequence) for row, (_, sequence, _) in zip(chosen, kept, strict=True)]
        )
        self._passes.stale()
        active = self._passes.bank.active
        given = [ACTIVE] * len(batch.lengths) if adapters is None else adapters
        names = [active if each == ACTIVE else each for each in given]
        routing, _ = self._passes.adapters(names, (batch.lengths.long(), rows), fresh=True)
        with routing:
            hidden = self.decoder.prefill(batch, rows, store)
        if chosen:
            last = torch.tensor([place for _, _, place in kept], device=hidden.device)
            self._begin(chosen, self.decoder.logits(hidden[last]))
        return hidden

    # ---- admission -------------------------------------------------------------------------------

    def _row(self, request: Request) -> Row:
        adapter = self._passes.bank.active if request.adapter == ACTIVE else request.adapter
        if adapter is not None and adapter not in self._passes.bank.known():
            known = ", ".join(self._passes.bank.known()) or "none"
            raise ValueError(f"the model holds no adapter {adapter!r}; it holds: {known}")
        self._next_id += 1
        return Row(self._next_id - 1, request, adapter, Chooser(request.sampling))

    def _begins(self) -> bool:
        """Whether waiting requests begin now: the first has room, and enough rows are free."""
        if not self._waiting or not self._fitting([self._waiting[0].need]):
            return False
        if not self._rows or not self._gather:
            return True
        fitting = self._fitting([row.need for row in islice(self._waiting, self._layout.rows)])
        most = len(self._rows) + fitting
        return fitting >= min(len(self._waiting), max(1, round(self._gather * most)))

    def _admit(self) -> bool:
        """Begins waiting requests in one packed pass; False where none has room."""
        candidates: list[Row] = []
        used = 0
        for row in self._waiting:
            used += len(row.request.prompt)
            if candidates and used > self._prefill_tokens:
                break
            candidates.append(row)
        chosen = candidates[: self._place(candidates)]
        if not chosen:
            return False
        for _ in chosen:
            self._waiting.popleft()
        batch = pack([Encoded("", row.request.prompt, ()) for row in chosen])
        repeats = batch.lengths.long()
        ends = repeats.cumsum(0) - 1
        batch = batch.to(self.device)
        ends = ends.to(self.device)
        routing, _ = self._passes.adapters([row.adapter for row in chosen], (repeats, ends), fresh=True)
        with routing:
            store = self._store(batch, [(row, number) for number, row in enumerate(chosen)])
            hidden = self.decoder.prefill(batch, ends, store)
        self._begin(chosen, self.decoder.logits(hidden))
        return True

    def _fitting(self, needs: Sequence[int]) -> int:
        """How many rows with these needs have room now."""
        return self._layout.fitting(needs, [row.need for row in self._rows])

    def _place(self, rows: Sequence[Row], at_least: int = 1) -> int:
        """Gives the first of these rows slots, as many as have room now, or none; returns their number."""
        active, needs = [row.need for row in self._rows], [row.need for row in rows]
        blocks, longest = self._expected
        count, blocks = self._layout.place(self._cache.blocks, active, needs, blocks)
        if count < at_least:
            return 0
        self._resize(blocks, max(longest, *needs[:count]))
        for row in rows[:count]:
            row.slot = len(self._rows)
            self._cache.take(row.slot, row.need)
            self._rows.append(row)
        return count

    def _resize(self, blocks: int, longest: int) -> None:
        """A cache of so many blocks, for rows up to `longest` tokens."""
        version = self._cache.version
        if blocks != self._cache.blocks:
            self._cache.resize(blocks)
        multiple = _LENGTH_MULTIPLE if self.device.type == "cuda" else 1
        self._cache.widen(bucket(max(self._layout.rows, 1)), -(-longest // multiple) * multiple)
        if self._cache.version != version:
            self._pass.resize(self._cache.slots)

    def _store(self, batch: MicroBatch, kept: Sequence[tuple[Row, int]]) -> StoreKeys:
        """Writes the keys and values of these rows' prompts, (row, index of its sequence)."""
        starts = torch.zeros(len(batch.lengths) + 1, dtype=torch.int64)
        torch.cumsum(batch.lengths, 0, out=starts[1:])
        source, places = [torch.empty(0, dtype=torch.int64)], [torch.empty(0, dtype=torch.int64)]
        for row, sequence in kept:
            every = torch.arange(len(row.request.prompt))
            source.append(every + starts[sequence])
            places.append(self._cache.places(row.slot, len(every)))
        index, target = (torch.cat(part).to(self.device) for part in (source, places))
        if not kept:
            return lambda layer, keys, values: None
        return lambda layer, keys, values: self._cache.store(layer, keys, values, index, target)

    def _begin(self, rows: Sequence[Row], logits: Tensor) -> None:
        """Takes the first new token of each row, whose prompt is in the cache now."""
        for row in rows:
            row.cached = len(row.request.prompt)
        self._take(rows, choose(logits, [row.chooser for row in rows]).tolist())

    # ---- decoding --------------------------------------------------------------------------------

    def _decode(self) -> None:
        """One new token for each row, and the start of the pass behind it."""
        flight = self._flight or self._passes.start(self._rows)
        self._flight = self._passes.follow(flight) if self._ahead and self._goes_on(flight) else None
        self._land(flight)
        if self._ahead and self._flight is None and self._rows and not self._begins():
            self._flight = self._passes.start(self._rows)

    def _goes_on(self, flight: Flight) -> bool:
        """Whether the same rows have another pass, as far as can be known before their tokens are."""
        return flight.rows == self._rows and any(
            row.count + 1 < row.request.max_new_tokens for row in flight.rows
        )

    def _settle(self) -> None:
        """Reads the tokens of a pass that was started: what comes next depends on them, or changes the cache."""
        if self._flight is not None:
            flight, self._flight = self._flight, None
            self._land(flight)

    def _land(self, flight: Flight) -> None:
        """Gives rows their tokens; one that ended or was cancelled meanwhile takes none."""
        pairs = [(row, token) for row, token in zip(flight.rows, flight.read(), strict=True) if row.slot >= 0]
        self._take([row for row, _ in pairs], [token for _, token in pairs])

    def _take(self, rows: Sequence[Row], tokens: Sequence[int]) -> None:
        """Appends a token to each row, and ends rows."""
        ended: list[Row] = []
        for row, token in zip(rows, tokens, strict=True):
            if token in row.request.end_token_ids:
                self._events.append(NewTokens(row.id, (), "end"))
                ended.append(row)
                continue
            row.last = token
            row.count += 1
            full = row.count == row.request.max_new_tokens
            self._events.append(NewTokens(row.id, (token,), "length" if full else None))
            if full:
                ended.append(row)
        # from the last slot on: rows at the end leave without a copy
        for row in sorted(ended, key=lambda row: -row.slot):
            self._leave(row)

    def _end(self, row: Row, tokens: tuple[int, ...], finished: Finished) -> None:
        self._events.append(NewTokens(row.id, tokens, finished))
        if row.slot >= 0:
            self._leave(row)

    def _leave(self, row: Row) -> None:
        """Frees the row's slot; the last row moves there."""
        last = self._rows.pop()
        self._cache.give_back(row.slot)
        if last is not row:
            self._cache.move(last.slot, row.slot)
            self._rows[row.slot] = last
            last.slot = row.slot
        row.slot = -1
        if not self._rows:
            self._flight = None
            self._passes.ended()
