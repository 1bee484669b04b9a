"""Casts of the adapters' float32 weights into the operands of the matrix products, once per pass."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from medqlora.compat.torch import foreach_copy_, foreach_mul
from medqlora.fused.kernels.available import has_triton

#: target, source, and the factor that scales in float32 before the cast rounds
Cast = tuple[Tensor, nn.Parameter, float]


class Casts:
    """Updates targets from their sources; on a GPU in one launch.

    Args:
        casts: of all groups.
    """

    def __init__(self, casts: Sequence[Cast]) -> None:
        self._casts = list(casts)
        self._by_kind = _by_kind(self._casts)
        self._readable = all(
            source.dtype == torch.float32 and source.is_contiguous() for _, source, _ in self._casts
        )
        self._run: Callable[[], None] | None = None
        #: where the sources were when `_run` was made
        self._places: tuple[int, ...] = ()

    @torch.no_grad()
    def __call__(self) -> None:
        if not self._casts:
            return
        if self._in_one_launch():
            places = tuple(source.data_ptr() for _, source, _ in self._casts)
            if self._run is None or places != self._places:
                from medqlora.fused.kernels.triton_casts import prepare

                self._run, self._places = prepare(self._casts), places
            self._run()
            return
        for targets, weights, factor in self._by_kind:
            wide = weights if factor == 1 else foreach_mul([weight.float() for weight in weights], factor)
            foreach_copy_(targets, wide)

    def _in_one_launch(self) -> bool:
        target = self._casts[0][0]
        return self._readable and target.is_cuda and target.dtype != torch.float32 and has_triton()


def _by_kind(casts: list[Cast]) -> list[tuple[list[Tensor], list[Tensor], float]]:
    """The casts as (targets, sources, factor), grouped so that contiguous targets need few launches."""
    kinds: dict[tuple[bool, float], tuple[list[Tensor], list[Tensor]]] = {}
    for target, weight, factor in casts:
        targets, weights = kinds.setdefault((target.is_contiguous(), factor), ([], []))
        targets.append(target)
        weights.append(weight)
    return [(targets, weights, factor) for (_, factor), (targets, weights) in kinds.items()]
