"""Reads a model's modules: linear layers with PEFT's LoRA around them, norms, and rotary frequencies."""

from typing import Any

import torch
from torch import Tensor

from medqlora.fused.group import Adapter, Projection


def projection(module: Any) -> Projection:
    """A linear layer, with the one adapter that PEFT has active on it."""
    if not hasattr(module, "lora_A"):
        return Projection(module, None)
    linear = module.base_layer
    names = [name for name in module.active_adapters if name in module.lora_A]
    if not names:
        return Projection(linear, None)
    (name,) = names
    return Projection(
        linear,
        Adapter(
            module.lora_A[name].weight,
            module.lora_B[name].weight,
            float(module.scaling[name]),
            module.lora_dropout[name],
        ),
    )


def norm_of(module: Any) -> tuple[Tensor, float]:
    """An RMS norm's weight and epsilon."""
    return module.weight, float(module.variance_epsilon)


def rope_type(config: Any) -> str:
    """transformers' name for how the rotary frequencies are scaled; "default" for not at all."""
    return str(config.rope_parameters.get("rope_type", "default"))


def rotary_frequencies(rotary: Any, config: Any) -> tuple[Tensor, float]:
    """Angle per position [d / 2] float32, and the factor on cos and sin.

    Args:
        rotary: the model's rotary module; transformers' own knows both.
        config: read where another (Unsloth's) doesn't.
    """
    if hasattr(rotary, "inv_freq") and hasattr(rotary, "attention_scaling"):
        return rotary.inv_freq.float(), float(rotary.attention_scaling)
    kind = rope_type(config)
    if kind == "default":
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        exponents = torch.arange(0, width, 2, dtype=torch.float32) / width
        return 1.0 / config.rope_parameters["rope_theta"] ** exponents, 1.0
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    frequencies, factor = ROPE_INIT_FUNCTIONS[kind](config, torch.device("cpu"))
    return frequencies.float(), float(factor)
