"""The parts of a vision-language model besides its language model, and the assertion of what is quantized."""

from typing import TYPE_CHECKING

import torch
from torch import nn

from medqlora.models.layers import base_model, is_linear, linear_layers, raw_weights, text_decoder
from medqlora.models.quantization import import_bitsandbytes, quant_state

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: parts of a module's name that make it the projector between vision tower and language model; Qwen's is a module of
#: its vision tower
_PROJECTORS = ("multi_modal_projector", "merger", "deepstack_merger_list", "connector")


def outside_linear(model: nn.Module) -> list[str]:
    """Full names of the linear layers outside the decoder's layers: vision tower, projector and head."""
    base = base_model(model)
    inside = linear_layers(base)
    return [
        name for name, module in base.named_modules() if isinstance(module, nn.Linear) and name not in inside
    ]


def projector_layers(model: nn.Module) -> list[str]:
    """Full names of the projector's linear layers."""
    return [name for name in _visual_layers(model) if _projects(name)]


def vision_layers(model: nn.Module) -> list[str]:
    """Full names of the vision tower's linear layers, without the projector's."""
    return [name for name in _visual_layers(model) if not _projects(name)]


def _visual_layers(model: nn.Module) -> list[str]:
    base = base_model(model)
    language = {id(module) for module in text_decoder(base).modules()}
    head = base.get_output_embeddings()
    return [
        name
        for name, module in base.named_modules()
        if is_linear(module) and id(module) not in language and module is not head
    ]


def count_visual(model: nn.Module) -> int:
    """Weights outside the language model and its head."""
    base = base_model(model)
    language = {id(weight) for weight in text_decoder(base).parameters()}
    language |= {id(weight) for weight in base.get_output_embeddings().parameters()}
    return sum(weight.numel() for weight in base.parameters() if id(weight) not in language)


def _projects(name: str) -> bool:
    return any(part in _PROJECTORS for part in name.split("."))


def check_quantized(model: "PreTrainedModel", quantization: str) -> None:
    """Compares which layers bitsandbytes holds in few bits with those that were meant: the decoder's linear layers.

    transformers matches the names of layers to leave out by patterns: names that match nothing are no error, and
    `["vision_tower"]` left 12 of a vision tower's layers to be quantized.

    Raises:
        RuntimeError: another layer is quantized, or one of the decoder's is not.
    """
    if quantization == "none":
        return
    bits = import_bitsandbytes().nn
    kinds = (bits.Linear4bit, bits.Linear8bitLt)
    quantized = {name for name, module in model.named_modules() if isinstance(module, kinds)}
    intended = {*linear_layers(model)} - {*raw_weights(model)}
    different = sorted(quantized ^ intended)
    if different:  # no assert, which python -O leaves out
        state = "is quantized" if different[0] in quantized else "is not quantized"
        raise RuntimeError(
            f"{len(different)} layers are not quantized as meant ({quantization} in the language model's layers "
            f"alone): the first, {different[0]}, {state}"
        )


def cast_unquantized(model: "PreTrainedModel", dtype: torch.dtype) -> None:
    """Casts every weight that is not quantized to `dtype`.

    Of files that are already quantized transformers casts some weights and leaves others as stored: a vision tower's
    linear layer then had a float32 bias and a bfloat16 weight.
    """
    for weight in model.parameters():
        if weight.is_floating_point() and quant_state(weight) is None:
            weight.data = weight.data.to(dtype)
