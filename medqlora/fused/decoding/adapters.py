"""Rows with different adapters in one pass."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate
from operator import is_

import torch
from torch import Tensor

from medqlora.fused.casts import Cast, Casts
from medqlora.fused.decoder import FusedDecoder
from medqlora.fused.group import Group
from medqlora.fused.modules import AdaptedLinear, active_adapters, is_adapted, linear_module
from medqlora.models.lora import SEVEN_PROJECTIONS


class _Route:
    """The adapters of the current pass.

    Attributes:
        tokens: [T] int64: each token's adapter, -1 for none.
        selected: [R] the same for the tokens that the last layer computes.
        only: the adapter of all tokens; None where they differ, or in a pass that is captured as a graph.
    """

    tokens: Tensor
    selected: Tensor
    only: int | None = None

    def of(self, count: int) -> Tensor:
        """The adapters of a product's rows; where T = R, both are the same."""
        return self.tokens if count == len(self.tokens) else self.selected


class AdapterBank:
    """All LoRA adapters that a PEFT model holds, for passes in which each row has its own, or none.

    The adapters' A are stacked and their B stand side by side, so two products serve all rows; in between, a row's
    products with the ranks of other adapters become 0. That takes ranks · (in + out) operations a row, little beside
    in · out while the adapters are few. A pass whose rows all have one adapter takes its ranks alone: it is faster, and
    rounds alike whichever other adapters there are.

    Args:
        decoder: runs the passes.

    Attributes:
        names: of the adapters; a row's adapter is an index of it, or -1 for none.
        version: changes with the addresses of the stacked weights.
    """

    def __init__(self, decoder: FusedDecoder) -> None:
        self._decoder = decoder
        self._route = _Route()
        self._groups: list[tuple[Group, _GroupLoRA]] = []
        self._casts = Casts([])
        self._held: list[Tensor] = []
        self._own = self._first_active() if decoder.own_adapter else None
        self.names: tuple[str, ...] = ()
        self.version = 0

    @property
    def active(self) -> str | None:
        """The adapter that PEFT has active now; None while there is none, or it is disabled."""
        return self._first_active() if self._decoder.adapters_on else None

    @property
    def plain(self) -> str | None:
        """The adapter that all rows of a pass have without `routing`: the decoder's own; None for none."""
        return self._own if self._decoder.adapters_on else None

    def known(self) -> tuple[str, ...]:
        """The names of the adapters that the model holds now."""
        return tuple(dict.fromkeys(name for module in self._modules() for name in module.lora_A))

    def _modules(self) -> Iterator[AdaptedLinear]:
        """The linear layers that have adapters now: an adapter that is loaded later may be on others."""
        every = (
            linear_module(layer, name) for layer in self._decoder.body.layers for name in SEVEN_PROJECTIONS
        )
        return (module for module in every if is_adapted(module))

    def _first_active(self) -> str | None:
        return next((name for module in self._modules() for name in active_adapters(module)), None)

    @torch.no_grad()
    def refresh(self) -> None:
        """Copies the adapters' weights as they are now; call it before a series of passes.

        Raises:
            ValueError: an adapter is no plain LoRA.
        """
        adapted = list(self._modules())
        held: list[Tensor] = [part.weight for module in adapted for part in module.lora_A.values()]
        same = len(held) == len(self._held) and all(map(is_, held, self._held))
        if not same:  # an adapter came or went
            self._held, self.names = held, self.known()
            self.version += 1
            self._groups = []
            modules = {id(module.base_layer): module for module in adapted}
            for group in self._decoder.groups:
                made = _GroupLoRA(group, modules, self.names, self._route, self._decoder.dtype)
                if len(made.owners):
                    self._groups.append((group, made))
            self._casts = Casts([cast for _, lora in self._groups for cast in lora.casts])
        self._casts()

    @contextmanager
    def routing(self, tokens: Tensor, selected: Tensor, only: int | None = None) -> Iterator[None]:
        """While entered, each token of a pass has its own adapter, an index of `names`, or -1 for none.

        Args:
            tokens: [T] int64: of the tokens.
            selected: [R] int64: of the tokens whose hidden states are asked for; in a decoding pass of all.
            only: the adapter of all tokens, as known on the host; None where they may differ.
        """
        self._route.tokens, self._route.selected, self._route.only = tokens, selected, only
        decoder = self._decoder
        decoder.by_row = True
        for group in decoder.groups:
            group.active = False
        for group, lora in self._groups:
            group.by_row = lora
        try:
            yield
        finally:
            decoder.by_row = False
            for group, _ in self._groups:
                group.by_row = None


class _GroupLoRA:
    """The adapters of one weight group; see `AddsLoRA`.

    Attributes:
        owners, down, up: as of `AddsLoRA`.
        casts: (target, source, factor) of the copies that update `down` and `up`.
    """

    def __init__(
        self,
        group: Group,
        modules: Mapping[int, AdaptedLinear],
        names: Sequence[str],
        route: _Route,
        dtype: torch.dtype,
    ) -> None:
        self._route = route
        parts: list[tuple[AdaptedLinear, str, int, int]] = []
        owners: list[int] = []
        starts = accumulate(group.sizes, initial=0)
        adapted = [
            (module, start)
            for projection, start in zip(group.projections, starts, strict=False)
            if (module := modules.get(id(projection.linear))) is not None
        ]
        #: adapter → its ranks, which stand side by side
        self._ranks: dict[int, slice] = {}
        for index, name in enumerate(names):
            first = len(owners)
            for module, start in adapted:
                if name in module.lora_A:
                    _check(module, name)
                    parts.append((module, name, start, len(owners)))
                    owners += [index] * module.lora_A[name].weight.shape[0]
            if len(owners) > first:
                self._ranks[index] = slice(first, len(owners))
        like = group.down
        self.owners = torch.tensor(owners, dtype=torch.int64, device=like.device)
        self.down = torch.zeros(len(owners), group.inputs, dtype=dtype, device=like.device)
        self.up = torch.zeros(group.outputs, len(owners), dtype=dtype, device=like.device)
        self.casts: list[Cast] = []
        for module, name, start, rank in parts:
            a, b = module.lora_A[name].weight, module.lora_B[name].weight
            ranks = slice(rank, rank + a.shape[0])
            self.casts.append((self.down[ranks], a, float(module.scaling[name])))
            self.casts.append((self.up[start : start + b.shape[0], ranks], b, 1.0))

    def add_to(self, y: Tensor, x: Tensor) -> None:
        only = self._route.only
        if only is not None:
            if (ranks := self._ranks.get(only)) is not None:
                y.addmm_(x @ self.down[ranks].t(), self.up[:, ranks].t())
            return
        low = x @ self.down.t()
        mine = self._route.of(len(x))[:, None] == self.owners
        y.addmm_(torch.where(mine, low, low.new_zeros(())), self.up.t())


def _check(module: AdaptedLinear, name: str) -> None:
    """Raises ValueError for an adapter that is more than A and B."""
    if name in getattr(module, "lora_variant", {}) or getattr(module, "lora_bias", {}).get(name):
        raise ValueError(f"the adapter {name} is no plain LoRA: it can't run in one batch with others")
