"""Where a model's text decoder is, and which of its weights can be quantized and adapted.

A decoder layer is a module in a numbered list (`model.layers.0`). Its weights are linear layers, or parameters that
hold every expert of a mixture (transformers 5: `mlp.experts.gate_up_proj`, shape [experts, out, in]).
"""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import nn

#: parts of a Mamba mixer that its CUDA kernels read as raw weights: neither an adapter nor 4 bits would reach them
_MIXER_WEIGHTS = ("out_proj", "x_proj", "dt_proj")
#: Gemma 3n and Gemma 4 clamp these weights in place in training, which packed bytes don't allow
_CLAMPED = ("prediction_coefs", "correction_coefs")
#: attention to what a text alone doesn't have: an image, or an encoder's output
_CROSS_ATTENTION = ("cross_attn", "encoder_attn", "crossattention")
#: what the names of layers that carry a state along the row say, in `layer_types` and the like
_RECURRENT = re.compile(r"linear|mamba|conv|recurrent|hybrid|ssm|lstm")


class Expert(NamedTuple):
    """A parameter that holds the weights of all experts of one layer.

    Attributes:
        name: its full name.
        module: that holds it.
        parameter: shape [experts, out, in], or [experts, in, out].
    """

    name: str
    module: nn.Module
    parameter: nn.Parameter


def base_model(model: Any) -> Any:
    """The transformers model inside a PEFT model, or `model` itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def text_decoder(model: Any) -> Any:
    """The module that turns token ids into the last hidden states.

    Of a multimodal model that is its language model, without the vision tower and the projector.

    Args:
        model: a transformers causal language model, or a PEFT model around one.
    """
    base = base_model(model)
    named = getattr(
        base, base.base_model_prefix, None
    )  # Llama 4's prefix names a module that it doesn't have
    if isinstance(named, nn.Module) and base.config.get_text_config() is base.config:
        return named
    body: Any = base.get_decoder()
    while body.get_output_embeddings() is not None:  # still a language model with its own head
        inner = getattr(body, "model", None)
        if not isinstance(inner, nn.Module):
            break
        body = inner
    return body


def decoder_modules(model: Any) -> Iterator[tuple[str, nn.Module]]:
    """(full name, module) of every module inside the text decoder's layers, in the model's own order."""
    base = base_model(model)
    body = text_decoder(base) if hasattr(base, "config") else base
    prefix = next((f"{name}." for name, module in base.named_modules() if module is body and name), "")
    count = (
        getattr(base.config.get_text_config(), "num_hidden_layers", None) if hasattr(base, "config") else None
    )
    # Gemma 3n has shorter lists beside its layers, of what stands once
    lists = [
        f"{name}."
        for name, module in body.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == count and not _in_a_list(name)
    ]
    for name, module in body.named_modules():
        if name.startswith(tuple(lists)) if lists else _in_a_list(name):
            yield f"{prefix}{name}", module


def _in_a_list(name: str) -> bool:
    return any(part.isdigit() for part in name.split("."))


def is_linear(module: nn.Module) -> bool:
    """Whether a module computes x W + b and nothing else: `nn.Linear`, bitsandbytes' kinds, GPT-2's `Conv1D`, Falcon's.

    Other subclasses have a forward of their own (routers, grouped layers) and are left alone.
    """
    from transformers.pytorch_utils import Conv1D

    kind = type(module)
    bits = kind.__module__.startswith("bitsandbytes.") and isinstance(module, nn.Linear)
    return kind is nn.Linear or kind is Conv1D or bits or is_falcon(module)


def is_falcon(module: nn.Module) -> bool:
    """Whether it is Falcon's linear layer, a subclass with the same product that transformers doesn't quantize."""
    return type(module).__name__ == "FalconLinear"


def is_conv1d(module: nn.Module) -> bool:
    """Whether it is, or was before its quantization, GPT-2's `Conv1D`, whose weight is [in, out]."""
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, Conv1D) or getattr(module, "source_cls", None) is Conv1D


def linear_layers(model: Any) -> dict[str, nn.Module]:
    """Full name → linear layer inside the text decoder's layers.

    The head and whatever stands once is left out: an adapter there would multiply the vocabulary.
    """
    return {name: module for name, module in decoder_modules(model) if is_linear(module)}


def raw_weights(model: Any) -> list[str]:
    """Full names of linear layers whose weight is also read past their forward: they stay in 16 bits, unadapted."""
    modules = dict(decoder_modules(model))
    found = []
    for name in modules:
        parent, _, leaf = name.rpartition(".")
        # a Mamba mixer: a decay a state, and a causal convolution
        mixer = parent in modules and hasattr(modules[parent], "A_log") and hasattr(modules[parent], "conv1d")
        router = leaf == "classifier" and parent.endswith("router")  # LongCat's
        if leaf in _CLAMPED or router or (mixer and leaf in _MIXER_WEIGHTS):
            found.append(name)
    return found


def cross_attention(model: Any) -> list[str]:
    """Full names of modules that attend to an image or an encoder, which a text run doesn't have."""
    return [name for name, _ in decoder_modules(model) if {*name.split(".")} & {*_CROSS_ATTENTION}]


def experts(model: Any) -> list[Expert]:
    """The parameters that hold all experts of a layer, in the model's order; none of a model without experts."""
    base = base_model(model)
    if not hasattr(base, "config") or "expert" not in str(base.config.get_text_config().to_dict()):
        return []  # RecurrentGemma's gates have three dimensions too
    found = []
    for name, module in decoder_modules(model):
        if is_linear(module) or isinstance(module, (nn.Embedding, nn.modules.conv._ConvNd)):
            continue
        if hasattr(module, "A_log"):
            continue  # the heads of Zamba's mixer, which it multiplies by itself
        for leaf, parameter in module.named_parameters(recurse=False):
            full = f"{name}.{leaf}"
            matrices = parameter.ndim == 3 or (parameter.ndim == 2 and "experts" in name.split("."))
            quantized = getattr(parameter, "quant_state", None) is not None
            if (quantized or (matrices and min(parameter.shape) > 1)) and "bias" not in leaf:
                found.append(Expert(full, module, parameter))
    return found


def block_child(name: str) -> str:
    """Of a module's full name, the child of its decoder layer that it belongs to: `model.layers.0.mlp`."""
    parts = name.split(".")
    layer = next(place for place, part in enumerate(parts) if part.isdigit())
    return ".".join(parts[: layer + 2])


def inside_layer(name: str) -> str:
    """Of a full name, what stands behind the decoder layer's number: `mlp.experts.gate_up_proj`."""
    parts = name.split(".")
    layer = next(place for place, part in enumerate(parts) if part.isdigit())
    return ".".join(parts[layer + 1 :])


def carries_state(model: Any) -> str | None:
    """Why rows of this model can't be packed, whatever its positions say; None where nothing is known against it.

    A state or a convolution that runs along the row runs from one example into the next.
    """
    base = base_model(model)
    body = text_decoder(base)
    config = base.config.get_text_config()
    kinds = [
        kind
        for key in ("layer_types", "layers_block_type", "block_types")
        for kind in (getattr(config, key, None) or ())
    ]
    recurrent = any(_RECURRENT.search(str(kind)) for kind in kinds)
    stateful = getattr(base, "_is_stateful", False) or getattr(body, "_is_stateful", False)
    if recurrent or stateful or any(isinstance(module, nn.Conv1d) for _, module in decoder_modules(base)):
        return "its layers carry a state along the row"
    return None
