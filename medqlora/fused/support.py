"""Which models the engine runs; a one-line reason for the others."""

from typing import TYPE_CHECKING

import torch
from torch import nn

from medqlora.fused.families import FAMILIES
from medqlora.fused.kernels.dequantize import Linear4bit
from medqlora.fused.modules import (
    AdaptedLinear,
    active_adapters,
    is_adapted,
    linear_module,
    read_model,
    rope_type,
    text_config,
)
from medqlora.models.host_weights import HostEmbedding, HostHead
from medqlora.models.int4 import Int4Linear
from medqlora.models.lora import SEVEN_PROJECTIONS
from medqlora.models.quantization import import_bitsandbytes

if TYPE_CHECKING:
    from transformers import PretrainedConfig

#: scalings of the rotary frequencies that don't depend on the text's length
_ROPE_TYPES = ("default", "linear", "llama3", "yarn")


def unsupported_shape(config: "PretrainedConfig", longest: int = 0) -> str | None:
    """`unsupported` for a text model's configuration."""
    family = FAMILIES.get(config.model_type)
    if family is None:
        return f"its architecture is {config.model_type}, known are {', '.join(FAMILIES.names())}"
    if rope_type(config) not in _ROPE_TYPES:
        return f"its rotary positions are {rope_type(config)}, known are {', '.join(_ROPE_TYPES)}"
    if config.hidden_act not in ("silu", "swish"):
        return f"its activation is {config.hidden_act}, known is silu"
    window = family.window(config)
    if window is not None and longest > window:
        return f"its attention sees the last {window} tokens, and the longest example has {longest}"
    if getattr(config, "attention_dropout", 0):
        return f"its attention has a dropout of {config.attention_dropout}"
    return family.obstacle(config)


def unsupported(model: nn.Module, longest: int = 0) -> str | None:
    """The reason why `FusedDecoder` can't run a model, in a few words; None if it can.

    Args:
        model: a transformers causal language model in 4 bits, or a PEFT model around one.
        longest: tokens of the longest example.
    """
    reason = unsupported_shape(text_config(model), longest)
    if reason is not None:
        return reason
    body, head, _ = read_model(model)
    if not hasattr(body, "embed_tokens"):
        return f"its language model is a part of {type(body).__name__}"
    for name, module in body.named_modules():
        if hasattr(module, "modules_to_save"):
            return f"its adapter has weights of its own in place of {name}"
    if type(head) not in (torch.nn.Linear, HostHead) or head.bias is not None:
        return f"its head is {type(head).__name__}, known is a Linear without bias"
    if type(body.embed_tokens) not in (torch.nn.Embedding, HostEmbedding):
        return f"its embedding is {type(body.embed_tokens).__name__}, known is Embedding"
    dtype = body.embed_tokens.weight.dtype
    if head.weight.dtype != dtype or dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return f"its head is {head.weight.dtype} and its embedding {dtype}"
    trained = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    for layer in body.layers:
        for name in SEVEN_PROJECTIONS:
            module = linear_module(layer, name)
            reason = _adapter(module) if is_adapted(module) else None
            reason = reason or _linear(module, dtype, biased=name in ("q_proj", "k_proj", "v_proj"))
            if reason is not None:
                return f"{name} {reason}"
            if is_adapted(module):
                trained -= {id(value) for key, value in module.named_parameters() if "lora_" in key}
    if trained:
        return f"it trains {len(trained)} weights that are not LoRA's on {', '.join(SEVEN_PROJECTIONS)}"
    return None


def _adapter(module: AdaptedLinear) -> str | None:
    """The reason why the adapters of one linear layer can't run; None if they can."""
    names = active_adapters(module)
    if len(names) > 1:
        return f"has {len(names)} active adapters"
    if getattr(module, "merged", False):
        return "has its adapter merged"
    for name in names:
        if name in getattr(module, "lora_variant", {}):
            return f"has an adapter of another kind ({type(module.lora_variant[name]).__name__})"
        if getattr(module, "lora_bias", {}).get(name):
            return "has an adapter with a bias"
        if module.lora_A[name].weight.dtype != torch.float32:
            return f"has an adapter in {module.lora_A[name].weight.dtype}, known is float32"
        if type(module.lora_dropout[name]) not in (torch.nn.Dropout, torch.nn.Identity):
            return f"has a dropout of another kind ({type(module.lora_dropout[name]).__name__})"
    return None


def _linear(module: Linear4bit | AdaptedLinear, dtype: torch.dtype, *, biased: bool) -> str | None:
    """The reason why one linear layer can't run; None if it can."""
    linear = module.base_layer if is_adapted(module) else module
    if hasattr(module, "base_layer") and not is_adapted(module):
        return f"is {type(module).__name__}, known is LoRA"
    if not isinstance(linear, (import_bitsandbytes().nn.Linear4bit, Int4Linear)):
        return f"is {type(linear).__name__}, known is bitsandbytes' Linear4bit, or Int4Linear"
    if linear.weight.quant_state is None:
        return "is not quantized yet"
    if linear.compute_dtype != dtype:
        return f"computes in {linear.compute_dtype}, the rest of the model in {dtype}"
    if linear.bias is not None and not biased:
        return "has a bias"
    return None
