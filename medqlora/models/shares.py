"""Which share of a model's weights is quantized, and which has an adapter."""

from typing import Any, NamedTuple

import torch
from torch import nn

from medqlora.models.layers import (
    base_model,
    decoder_modules,
    experts,
    is_falcon,
    linear_layers,
    raw_weights,
)
from medqlora.models.quantization import Quantization
from medqlora.models.targets import Targets

#: how the shares call bits that bitsandbytes' kinds of quantization have
_KINDS = {"nf4": "4 bits (nf4)", "fp4": "4 bits (fp4)", "int8": "8 bits", "none": "4 bits"}


class Shares(NamedTuple):
    """Of the weights in the text decoder's layers; embedding, head and vision tower are not in any of them.

    Attributes:
        total: weights.
        quantized: of those, in 4 or 8 bits.
        adapted: of those, with an adapter.
    """

    total: int
    quantized: int
    adapted: int

    def line(self, quantization: Quantization) -> str:
        """What a user is told at the start, in one line."""
        return (
            f"Weights: {_percent(self.quantized, self.total)} of the decoder layers' weights are in "
            f"{_KINDS[quantization]}, {_percent(self.adapted, self.total)} have adapters"
        )


def loaded_shares(model: Any) -> Shares:
    """Of a loaded model.

    Args:
        model: a transformers causal language model, or a PEFT model around one.
    """
    adapted = {id(weight) for weight in _adapted_weights(model)}
    total = quantized = with_adapter = 0
    seen: set[int] = set()
    for name, module in decoder_modules(model):
        for leaf, parameter in module.named_parameters(recurse=False):
            if "lora_" in f"{name}.{leaf}" or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            state = getattr(parameter, "quant_state", None)
            count = state.shape.numel() if state is not None else parameter.numel()
            total += count
            quantized += count if state is not None or parameter.dtype == torch.int8 else 0
            with_adapter += count if id(parameter) in adapted else 0
    return Shares(total, quantized, with_adapter)


def predicted_shares(model: Any, quantization: Quantization, targets: Targets) -> Shares:
    """What `loaded_shares` will say of a model that isn't loaded yet.

    Args:
        model: its modules on the meta device.
        quantization: as asked for.
        targets: of its adapters.
    """
    base = base_model(model)
    linear = linear_layers(base)
    left = {*raw_weights(base)}
    four_bits = quantization in ("nf4", "fp4")
    quantizable = {
        id(module.weight)
        for name, module in linear.items()
        if name not in left and (four_bits or not is_falcon(module))
    }
    grouped = {id(expert.parameter): expert.name for expert in experts(base)}
    if four_bits:
        quantizable |= {*grouped}
    adapted = {
        id(module.weight)
        for name, module in linear.items()
        if any(_ends(name, one) for one in targets.modules)
    }
    adapted |= {key for key, name in grouped.items() if any(_ends(name, one) for one in targets.parameters)}
    total = quantized = with_adapter = 0
    seen: set[int] = set()
    for _, module in decoder_modules(base):
        for parameter in module.parameters(recurse=False):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                total += parameter.numel()
                quantized += parameter.numel() if id(parameter) in quantizable else 0
                with_adapter += parameter.numel() if id(parameter) in adapted else 0
    return Shares(total, 0 if quantization == "none" else quantized, with_adapter)


def adapted_names(model: nn.Module) -> set[str]:
    """Full names, as the base has them, of what has an adapter: linear layers, and parameters that hold experts."""
    found = set()
    for name, module in model.named_modules():
        if not getattr(module, "lora_A", None):
            continue
        clean = name.removeprefix("base_model.model.").replace(".base_layer", "")
        parameter = getattr(module, "parameter_name", None)
        found.add(clean if parameter is None else f"{clean}.{parameter}")
    return found


def _adapted_weights(model: nn.Module) -> list[nn.Parameter]:
    found = []
    for module in model.modules():
        if getattr(module, "lora_A", None):
            held: Any = module.get_base_layer()  # type: ignore[operator]  # PEFT's LoraLayer
            found.append(getattr(held, getattr(module, "parameter_name", "weight")))
    return found


def _percent(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "0.0%"


def _ends(full: str, name: str) -> bool:
    return full == name or full.endswith(f".{name}")
