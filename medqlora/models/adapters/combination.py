"""The weighted combination of several adapters into one, by PEFT's own `add_weighted_adapter`."""

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from medqlora.errors import InputError

if TYPE_CHECKING:
    from peft import LoraConfig, LoraModel, PeftModel

#: method → what it does
METHODS: Mapping[str, str] = {
    "cat": "the exact weighted sum of the updates; the rank is the sum of the members' ranks",
    "svd": "the weighted sum, cut to --rank by a singular value decomposition",
    "linear": "weighted sums of A and of B apart: small, and only a rough approximation",
    "ties": "TIES: prunes to --density, and elects a sign for each weight (https://arxiv.org/abs/2306.01708)",
    "dare_linear": "DARE: drops all but --density at random and rescales, then linear (https://arxiv.org/abs/2311.03099)",
    "dare_ties": "DARE, then TIES",
    "magnitude_prune": "keeps the largest --density of A and B, then linear",
}
#: methods that take a density
PRUNING = ("ties", "dare_linear", "dare_ties", "magnitude_prune")
_NAME = "combined"


class Combination(NamedTuple):
    """A combined adapter.

    Attributes:
        weights: its tensors by parameter name, as `save_peft_files` takes them.
        peft_config: the fields of its LoraConfig, as plain values.
        rank: of its updates.
        deviation: largest relative difference of a layer's update from the weighted sum, by Frobenius norm.
        name: PEFT's name of it in the model.
    """

    weights: dict[str, Tensor]
    peft_config: dict[str, object]
    rank: int
    deviation: float
    name: str


def combine(
    model: nn.Module,
    members: Sequence[str],
    weights: Sequence[float],
    method: str,
    *,
    rank: int | None = None,
    density: float | None = None,
    seed: int = 0,
) -> Combination:
    """Adds the combination to the model, and returns it.

    Args:
        model: PEFT's, with the members loaded.
        members: PEFT's names of them.
        weights: one a member.
        method: of `METHODS`.
        rank: of svd; None for the largest of the members'.
        density: share of the weights that is kept, of `PRUNING`.
        seed: of the weights that DARE drops.

    Raises:
        InputError: PEFT can't combine these members in this way.
    """
    peft = cast("PeftModel", model)
    configs = {name: peft.peft_config[name] for name in members}
    scaled = {name: getattr(config, "use_dora", False) for name, config in configs.items()}
    if any(scaled.values()):
        raise InputError(
            "--adapters: one was trained with DoRA, whose magnitudes PEFT can't combine: give plain LoRA"
        )
    options: dict[str, Any] = {"combination_type": method, "svd_full_matrices": False}
    options |= {"svd_rank": rank} if method == "svd" else {}
    options |= {"density": density} if method in PRUNING else {}
    torch.manual_seed(seed)
    try:
        cast("LoraModel", peft.base_model).add_weighted_adapter(
            list(members), list(weights), _NAME, **options
        )
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"--method {method}: PEFT can't combine these adapters ({reason}): use cat or svd"
        ) from error
    config = cast("LoraConfig", peft.peft_config[_NAME])
    plain = {str(key): _plain(value) for key, value in config.to_dict().items()}
    plain["use_rslora"] = False  # the updates hold their scale already: alpha equals r
    found = {
        name.replace(f".{_NAME}.", ".default."): value.detach().cpu().clone()
        for name, value in peft.named_parameters()
        if f".{_NAME}." in name
    }
    deviation = max(
        (_deviation(layer, members, weights) for layer in peft.modules() if _has(layer, _NAME)), default=0.0
    )
    return Combination(found, plain, int(config.r), deviation, _NAME)


def _has(layer: nn.Module, name: str) -> bool:
    parts = getattr(layer, "lora_A", None)
    return isinstance(parts, nn.ModuleDict) and name in parts


def _update(layer: nn.Module, name: str, scale: float) -> Tensor:
    """B A of an adapter's layer, times its scale."""
    a, b = (
        cast(nn.Linear, cast(nn.ModuleDict, getattr(layer, part))[name]).weight.detach().float()
        for part in ("lora_A", "lora_B")
    )
    return b @ a * scale


def _deviation(layer: nn.Module, members: Sequence[str], weights: Sequence[float]) -> float:
    """The relative difference of the combined update from the weighted sum of the members' updates."""
    scaling = cast("Mapping[str, float]", layer.scaling)
    wanted = sum(
        (
            weight * _update(layer, name, scaling[name])
            for name, weight in zip(members, weights, strict=True)
            if _has(layer, name)
        ),
        torch.zeros(()),
    )
    norm = float(torch.linalg.norm(wanted))
    return float(torch.linalg.norm(_update(layer, _NAME, 1.0) - wanted)) / norm if norm else 0.0


def _plain(value: object) -> object:
    """PEFT's configuration as plain values."""
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return str(value.value) if isinstance(value, Enum) else value
