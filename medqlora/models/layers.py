"""The text decoder inside a model, and which of its weights can be quantized and adapted.

A decoder layer is a module in a numbered list (`model.layers.0`). Its weights are linear layers, or parameters that
hold every expert of a mixture (transformers 5: `mlp.experts.gate_up_proj`, shape [experts, out, in]).

Throughout this folder, `model` is a transformers causal language model, loaded or on the meta device, or a PEFT model
around one.
"""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple, cast

from torch import nn

from medqlora.compat.transformers import carries_state_in_cache
from medqlora.models.int4 import Int4Linear
from medqlora.models.quantization import quant_state

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: parts of a Mamba mixer that its CUDA kernels read as raw weights: neither an adapter nor 4 bits would reach them
_MIXER_WEIGHTS = ("out_proj", "x_proj", "dt_proj")
#: Gemma 3n and Gemma 4 clamp these weights in place in training, which packed bytes don't allow
_CLAMPED = ("prediction_coefs", "correction_coefs")
#: attention to what a text alone lacks: an image, or an encoder's output
_CROSS_ATTENTION = ("cross_attn", "encoder_attn", "crossattention")
#: kinds of layers in `layer_types` and the like that carry a state along the row
_RECURRENT = re.compile(r"linear|mamba|conv|recurrent|hybrid|ssm|lstm")
#: the number of a decoder layer in a weight's name
LAYER_NUMBER = re.compile(r"\.(?:layers|h|blocks|layer)\.(\d+)\.")
_CONVOLUTIONS = nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d


class Expert(NamedTuple):
    """A parameter that holds the weights of all experts of one layer.

    Attributes:
        name: its full name.
        module: its owner.
        parameter: shape [experts, out, in], or [experts, in, out].
    """

    name: str
    module: nn.Module
    parameter: nn.Parameter

    @property
    def leaf(self) -> str:
        """Its name in its owner."""
        return last_part(self.name)


def last_part(name: str) -> str:
    """The last part of a dotted name."""
    return name.rpartition(".")[2]


def ends_with(full: str, *names: str) -> bool:
    """Whether a full name is one of `names`, or ends with one after a dot."""
    return any(full == name or full.endswith(f".{name}") for name in names)


def base_model(model: nn.Module) -> "PreTrainedModel":
    """The transformers model inside a PEFT model, or `model` itself."""
    get_base_model = getattr(model, "get_base_model", None)
    return cast("PreTrainedModel", model if get_base_model is None else get_base_model())


def text_decoder(model: nn.Module) -> nn.Module:
    """The module that turns token ids into the last hidden states.

    In a multimodal model that is its language model, without the vision tower and the projector.
    """
    base = base_model(model)
    # Llama 4's prefix names a module that it doesn't have
    body = getattr(base, base.base_model_prefix, None)
    if isinstance(body, nn.Module) and base.config.get_text_config() is base.config:
        return body
    body = base.get_decoder()
    while body.get_output_embeddings() is not None:  # type: ignore[operator]  # still with a head of its own
        inner = getattr(body, "model", None)
        if not isinstance(inner, nn.Module):
            break
        body = inner
    return body


def decoder_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """(full name, module) of every module inside the text decoder's layers, in the model's own order."""
    base = base_model(model)
    body: nn.Module = base
    count = None
    if hasattr(base, "config"):
        body = text_decoder(base)
        count = getattr(base.config.get_text_config(), "num_hidden_layers", None)
    prefix = next((f"{name}." for name, module in base.named_modules() if module is body and name), "")
    # Gemma 3n has shorter lists beside its layers, of modules that no layer owns
    lists = tuple(
        f"{name}."
        for name, module in body.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == count and not _in_a_list(name)
    )
    for name, module in body.named_modules():
        if name.startswith(lists) if lists else _in_a_list(name):
            yield f"{prefix}{name}", module


def decoder_layers(model: nn.Module) -> list[nn.Module]:
    """The text decoder's layers, in the order in which they run.

    Raises:
        ValueError: it has no list of as many layers as its configuration says.
    """
    body = text_decoder(model)
    count = base_model(model).config.get_text_config().num_hidden_layers
    lists = [
        [*module] for module in body.modules() if isinstance(module, nn.ModuleList) and len(module) == count
    ]
    if not lists:
        raise ValueError(f"{type(body).__name__} has no list of {count} layers")
    # Gemma 3n has lists of smaller modules beside its layers
    return max(lists, key=lambda layers: sum(len([*layer.modules()]) for layer in layers))


def _in_a_list(name: str) -> bool:
    return any(part.isdigit() for part in name.split("."))


def is_linear(module: nn.Module) -> bool:
    """Whether a module computes x W + b and nothing else: `nn.Linear` and its kinds in few bits, `Conv1D`, Falcon's.

    Other subclasses have a forward of their own (routers, grouped layers) and are left alone.
    """
    from transformers.pytorch_utils import Conv1D

    kind = type(module)
    bits = kind.__module__.startswith("bitsandbytes.") and isinstance(module, nn.Linear)
    return kind in (nn.Linear, Int4Linear, Conv1D) or bits or is_falcon(module)


def is_falcon(module: nn.Module) -> bool:
    """Whether it is Falcon's linear layer, a subclass with the same product that transformers doesn't quantize."""
    return type(module).__name__ == "FalconLinear"


def is_conv1d(module: nn.Module) -> bool:
    """Whether it is, or was before its quantization, GPT-2's `Conv1D`, whose weight is [in, out]."""
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, Conv1D) or getattr(module, "source_cls", None) is Conv1D


def linear_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Full name → linear layer inside the text decoder's layers.

    The head and other modules outside the layers are left out: an adapter there would multiply the vocabulary.
    """
    return {name: module for name, module in decoder_modules(model) if is_linear(module)}


def raw_weights(model: nn.Module) -> list[str]:
    """Full names of linear layers whose weight is also read outside their forward: they stay in 16 bits, unadapted."""
    modules = dict(decoder_modules(model))

    def is_raw(name: str) -> bool:
        parent, _, leaf = name.rpartition(".")
        # a Mamba mixer has a decay of its state and a causal convolution
        mixer = parent in modules and hasattr(modules[parent], "A_log") and hasattr(modules[parent], "conv1d")
        router = leaf == "classifier" and parent.endswith("router")  # LongCat's
        return leaf in _CLAMPED or router or (mixer and leaf in _MIXER_WEIGHTS)

    return list(filter(is_raw, modules))


def cross_attention(model: nn.Module) -> list[str]:
    """Full names of modules that attend to an image or an encoder, which a text run lacks."""
    return [name for name, _ in decoder_modules(model) if {*name.split(".")} & {*_CROSS_ATTENTION}]


def experts(model: nn.Module) -> list[Expert]:
    """The parameters that hold all experts of a layer, in the model's order; none for a model without experts."""
    base = base_model(model)
    if not hasattr(base, "config") or "expert" not in str(base.config.get_text_config().to_dict()):
        return []  # RecurrentGemma's gates have three dimensions too
    parameters = []
    for name, module in decoder_modules(model):
        if is_linear(module) or isinstance(module, (nn.Embedding, *_CONVOLUTIONS)):
            continue
        if hasattr(module, "A_log"):
            continue  # the heads of Zamba's mixer, which it multiplies by itself
        for leaf, parameter in module.named_parameters(recurse=False):
            matrices = parameter.ndim == 3 or (parameter.ndim == 2 and "experts" in name.split("."))
            quantized = quant_state(parameter) is not None
            if (quantized or (matrices and min(parameter.shape) > 1)) and "bias" not in leaf:
                parameters.append(Expert(f"{name}.{leaf}", module, parameter))
    return parameters


def block_child(name: str) -> str:
    """The child of a decoder layer that a module belongs to, from the module's full name: `model.layers.0.mlp`."""
    parts = name.split(".")
    return ".".join(parts[: _layer_index(parts) + 2])


def inside_layer(name: str) -> str:
    """The part of a full name behind the decoder layer's number: `mlp.experts.gate_up_proj`."""
    parts = name.split(".")
    return ".".join(parts[_layer_index(parts) + 1 :])


def _layer_index(parts: list[str]) -> int:
    return next(index for index, part in enumerate(parts) if part.isdigit())


def carries_state(model: nn.Module) -> str | None:
    """Why rows of this model can't be packed whatever its positions say; None where no reason is known.

    A state or a convolution along the row runs from one example into the next.
    """
    base = base_model(model)
    config = base.config.get_text_config()
    kinds = [
        kind
        for key in ("layer_types", "layers_block_type", "block_types")
        for kind in (getattr(config, key, None) or ())
    ]
    if (
        any(_RECURRENT.search(str(kind)) for kind in kinds)
        or carries_state_in_cache(base)
        or carries_state_in_cache(text_decoder(base))
        or any(isinstance(module, nn.Conv1d) for _, module in decoder_modules(base))
    ):
        return "its layers carry a state along the row"
    return None
