"""The shares of a model's weights that are quantized, and that have an adapter."""

from collections.abc import Container, Iterable
from typing import NamedTuple

import torch
from torch import nn

from medqlora.models.layers import (
    base_model,
    decoder_modules,
    ends_with,
    experts,
    is_falcon,
    linear_layers,
    raw_weights,
)
from medqlora.models.quantization import INT4, BaseQuantization, matrix_shape, quant_state
from medqlora.models.targets import Targets

#: words for each quantization
_KINDS = {**{kind: f"4 bits ({kind})" for kind in ("nf4", "fp4", *INT4)}, "int8": "8 bits"}


class Shares(NamedTuple):
    """Numbers of weights in the text decoder's layers, without embedding, head and vision tower.

    Attributes:
        total: weights.
        quantized: of those, in 4 or 8 bits.
        adapted: of those, with an adapter.
    """

    total: int
    quantized: int
    adapted: int

    def line(self, quantization: object) -> str:
        """The shares in one line for the user; `quantization` is the backend's option, "nf4" for instance."""
        return (
            f"Weights: {_percent(self.quantized, self.total)} of the decoder layers' weights are in "
            f"{_KINDS.get(str(quantization), '4 bits')}, {_percent(self.adapted, self.total)} have adapters"
        )


def loaded_shares(model: nn.Module) -> Shares:
    """The shares of a loaded model."""
    base_weights = (
        parameter
        for name, module in decoder_modules(model)
        for leaf, parameter in module.named_parameters(recurse=False)
        if "lora_" not in f"{name}.{leaf}"
    )
    adapted = {
        id(getattr(module.get_base_layer(), getattr(module, "parameter_name", "weight")))  # type: ignore[operator]
        for module in model.modules()
        if _has_adapter(module)
    }
    return _count(base_weights, adapted)


def predicted_shares(model: nn.Module, quantization: BaseQuantization, targets: Targets) -> Shares:
    """The shares that `loaded_shares` will give for a model that isn't loaded yet.

    Args:
        model: its modules on the meta device.
        quantization: the backend's option.
        targets: of its adapters.
    """
    base = base_model(model)
    linear = linear_layers(base)
    raw = {*raw_weights(base)}
    four_bits = quantization in ("nf4", "fp4")
    grouped = {expert.name: expert.parameter for expert in experts(base)}
    quantizable = {
        id(module.weight)
        for name, module in linear.items()
        if name not in raw and (four_bits or not is_falcon(module))
    }
    if four_bits:
        quantizable |= {*map(id, grouped.values())}
    adapted = {id(module.weight) for name, module in linear.items() if ends_with(name, *targets.modules)}
    adapted |= {id(parameter) for name, parameter in grouped.items() if ends_with(name, *targets.parameters)}
    weights = (
        parameter for _, module in decoder_modules(base) for parameter in module.parameters(recurse=False)
    )
    return _count(weights, adapted, set() if quantization == "none" else quantizable)


def _count(
    weights: Iterable[nn.Parameter], adapted: Container[int], quantized: Container[int] | None = None
) -> Shares:
    """Counts weights, each once.

    Args:
        weights: of the decoder layers.
        adapted: `id` of those with an adapter.
        quantized: `id` of those that will be quantized; None for what is quantized now.
    """
    total = in_few_bits = with_adapter = 0
    for parameter in {id(parameter): parameter for parameter in weights}.values():
        count = matrix_shape(parameter).numel()
        is_quantized = _is_quantized(parameter) if quantized is None else id(parameter) in quantized
        total += count
        in_few_bits += count if is_quantized else 0
        with_adapter += count if id(parameter) in adapted else 0
    return Shares(total, in_few_bits, with_adapter)


def _is_quantized(parameter: nn.Parameter) -> bool:
    return quant_state(parameter) is not None or parameter.dtype == torch.int8


def adapted_names(model: nn.Module) -> set[str]:
    """Full names, as the base has them, of what has an adapter: linear layers, and parameters that hold experts."""
    names = set()
    for name, module in model.named_modules():
        if _has_adapter(module):
            clean = name.removeprefix("base_model.model.").replace(".base_layer", "")
            parameter = getattr(module, "parameter_name", None)
            names.add(clean if parameter is None else f"{clean}.{parameter}")
    return names


def _has_adapter(module: nn.Module) -> bool:
    """Whether it is one of PEFT's LoRA layers with weights."""
    return bool(getattr(module, "lora_A", None))


def _percent(part: int, total: int) -> str:
    return f"{part / total:.1%}" if total else "0.0%"
