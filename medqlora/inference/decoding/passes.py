"""Decoding passes of rows: their state and adapters, and tokens that stay on the device until they are asked for."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from medqlora.fused import FusedDecoder
from medqlora.fused.decoding import AdapterBank, DecodePass, KeyValueCache
from medqlora.inference.decoding.row import Row
from medqlora.inference.decoding.sampling import choose


class Flight:
    """A pass that was started, and whose tokens the host may not have yet.

    Args:
        rows: of the pass, by slot as it was at its start.
        tokens: [R] int64: the next token of each.
        kind: what the pass depended on, see `Passes.adapters`.
    """

    def __init__(self, rows: Sequence[Row], tokens: Tensor, kind: tuple[object, ...]) -> None:
        self.rows = list(rows)
        self.tokens, self.kind = tokens, kind
        self._host, self._copied = tokens, None
        if tokens.is_cuda:
            # the host waits for this copy alone, and not for a pass that was started after it
            self._host = torch.empty(tokens.shape, dtype=tokens.dtype, pin_memory=True)
            self._host.copy_(tokens, non_blocking=True)
            self._copied = torch.cuda.Event()
            self._copied.record()

    def read(self) -> list[int]:
        """The tokens; waits until they are there."""
        if self._copied is not None:
            self._copied.synchronize()
        tokens: list[int] = self._host.tolist()
        return tokens


class Passes:
    """Runs decoding passes over the rows of a cache, each row with its own adapter.

    Args:
        decoder: the model.
        cache: of the rows.
        decode_pass: over the cache's slots.
    """

    def __init__(self, decoder: FusedDecoder, cache: KeyValueCache, decode_pass: DecodePass) -> None:
        self._decoder, self._cache, self._pass = decoder, cache, decode_pass
        self.bank = AdapterBank(decoder)
        #: whether the copies of the adapters' weights for passes with and without `routing` are those of now
        self._bank_fresh = self._plain_fresh = False

    def start(self, rows: Sequence[Row]) -> Flight:
        """A pass over the rows' last tokens."""
        context, kind = self.adapters([row.adapter for row in rows], None, fresh=False)
        idle = [0] * (self._cache.slots - len(rows))
        state = [[row.last for row in rows], [row.cached for row in rows], self._indices(rows, kind)]
        self._pass.state.copy_(torch.tensor([each + idle for each in state]))
        self._cache.update()
        return self._run(rows, context, kind)

    def follow(self, flight: Flight) -> Flight:
        """The pass behind one of the same rows, in the same slots: its tokens need not be on the host."""
        rows = flight.rows
        context, kind = self.adapters([row.adapter for row in rows], None, fresh=False)
        self._pass.state[0, : len(rows)] = flight.tokens
        self._pass.state[1, : len(rows)] += 1
        if kind != flight.kind:
            self._pass.state[2, : len(rows)] = torch.tensor(self._indices(rows, kind))
        return self._run(rows, context, kind)

    def _run(
        self, rows: Sequence[Row], context: AbstractContextManager[None], kind: tuple[object, ...]
    ) -> Flight:
        longest = 1 + max(row.cached for row in rows)
        with context:
            logits = self._pass.run(self._pass.rows(len(rows)), longest, kind)
        for row in rows:
            row.cached += 1
        return Flight(rows, choose(logits[: len(rows)], [row.chooser for row in rows]), kind)

    # ---- adapters --------------------------------------------------------------------------------

    def stale(self) -> None:
        """The adapters' weights may have changed."""
        self._bank_fresh = self._plain_fresh = False

    def ended(self) -> None:
        """No rows are left."""
        self._bank_fresh = False

    def adapters(
        self, names: Sequence[str | None], packed: tuple[Tensor, Tensor] | None, *, fresh: bool
    ) -> tuple[AbstractContextManager[None], tuple[object, ...]]:
        """The context of a pass over rows with these adapters, and what it depends on.

        Args:
            names: of the adapter of each row; None for the bare base model.
            packed: of a packed pass, the tokens of each row, and the tokens whose hidden states are asked for; None for
                a decoding pass.
            fresh: copy the adapters' weights, which may have changed.
        """
        plain = self.bank.plain
        if all(name == plain for name in names):
            on = self._decoder.adapters_on
            self._bank_fresh &= not fresh
            if not (fresh or self._plain_fresh):  # the prompts were in a pass with other adapters
                self._decoder.refresh(on)
            self._plain_fresh = on  # a packed pass copies them itself
            for group in self._decoder.groups:
                group.active = on
            return nullcontext(), (on,)
        self._plain_fresh &= not fresh
        if fresh or not self._bank_fresh:
            self.bank.refresh()
            self._bank_fresh = True
        only = None
        if packed is None:
            tokens = selected = self._pass.state[2, : self._pass.rows(len(names))]
        else:
            repeats, asked = packed
            indices = [self._index(name) for name in names]
            only = indices[0] if len(set(indices)) == 1 else None
            tokens = torch.tensor(indices).repeat_interleave(repeats).to(self._pass.state.device)
            selected = tokens[asked]
        return self.bank.routing(tokens, selected, only), ("by row", self.bank.version)

    def _indices(self, rows: Sequence[Row], kind: tuple[object, ...]) -> list[int]:
        """The adapters of rows in the state of a pass of this kind."""
        return [self._index(row.adapter) if len(kind) > 1 else 0 for row in rows]

    def _index(self, adapter: str | None) -> int:
        """The adapter in the bank, -1 for none. Raises ValueError where it was removed meanwhile."""
        return -1 if adapter is None else self.bank.names.index(adapter)
