"""Which models the engine runs: said in one line for those that it doesn't."""

from typing import Any

import torch

from medqlora.fused.projections import rope_type
from medqlora.models.host_weights import HostEmbedding, HostHead
from medqlora.models.lora import SEVEN_PROJECTIONS
from medqlora.models.quantization import import_bitsandbytes

#: transformers' `model_type` of the decoders that the engine knows
ARCHITECTURES = ("llama", "mistral", "qwen2", "qwen3")
#: rotary frequencies that don't depend on how long a text is
_ROPE_TYPES = ("default", "linear", "llama3", "yarn")


def attention_window(config: Any) -> int | None:
    """The longest example whose tokens all see each other, None for any; of a text model's configuration."""
    window = getattr(config, "sliding_window", None)
    if window is None or not getattr(config, "use_sliding_window", True):
        return None
    kinds = getattr(config, "layer_types", None)
    return None if kinds is not None and "sliding_attention" not in kinds else int(window)


def unsupported_shape(config: Any, longest: int = 0) -> str | None:
    """What a text model's configuration alone has against it, as `unsupported` says it."""
    if config.model_type not in ARCHITECTURES:
        return f"its architecture is {config.model_type}, known are {', '.join(ARCHITECTURES)}"
    if rope_type(config) not in _ROPE_TYPES:
        return f"its rotary positions are {rope_type(config)}, known are {', '.join(_ROPE_TYPES)}"
    if config.hidden_act not in ("silu", "swish"):
        return f"its activation is {config.hidden_act}, known is silu"
    window = attention_window(config)
    if window is not None and longest > window:
        return f"its attention sees the last {window} tokens, and the longest example has {longest}"
    if getattr(config, "attention_dropout", 0):
        return f"its attention has a dropout of {config.attention_dropout}"
    if getattr(config, "pretraining_tp", 1) != 1:
        return f"its pretraining_tp is {config.pretraining_tp}"
    return None


def unsupported(model: Any, longest: int = 0) -> str | None:
    """None for a model that `FusedDecoder` runs; else why not, in a few words.

    Args:
        model: a transformers causal language model in 4 bits, or a PEFT model around one.
        longest: tokens of the longest example that will go through it.
    """
    base: Any = model.get_base_model() if hasattr(model, "get_base_model") else model
    reason = unsupported_shape(base.config.get_text_config(), longest)
    if reason is not None:
        return reason
    body = getattr(base, base.base_model_prefix)
    for name, module in body.named_modules():
        if hasattr(module, "modules_to_save"):
            return f"its adapter has weights of its own in place of {name}"
    head = base.get_output_embeddings()
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
            part = layer.mlp if hasattr(layer.mlp, name) else layer.self_attn
            module = getattr(part, name)
            reason = _projection(module, dtype, biased=name in ("q_proj", "k_proj", "v_proj"))
            if reason is not None:
                return f"{name} {reason}"
            trained -= {id(parameter) for key, parameter in module.named_parameters() if "lora_" in key}
    if trained:
        return f"it trains {len(trained)} weights that are not LoRA's on {', '.join(SEVEN_PROJECTIONS)}"
    return None


def _projection(module: Any, dtype: torch.dtype, *, biased: bool) -> str | None:
    """What is unknown about one linear layer, None for nothing."""
    linear = module
    if hasattr(module, "base_layer"):
        if not hasattr(module, "lora_A"):
            return f"is {type(module).__name__}, known is LoRA"
        linear = module.base_layer
        names = [name for name in module.active_adapters if name in module.lora_A]
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
    if not isinstance(linear, import_bitsandbytes().nn.Linear4bit):
        return f"is {type(linear).__name__}, known is bitsandbytes' Linear4bit"
    if linear.weight.quant_state is None:
        return "is not quantized yet"
    if linear.compute_dtype != dtype:
        return f"computes in {linear.compute_dtype}, the rest of the model in {dtype}"
    if linear.bias is not None and not biased:
        return "has a bias"
    return None
