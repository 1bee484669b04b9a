"""Merging a whole model in host memory, for architectures whose files can't be merged tensor by tensor.

transformers renames or joins the tensors of some files (the experts of a mixture). Such a base is loaded in 16 or 32
bits, and each weight that the live model quantizes takes the values that quantization gives it.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from medqlora.artifacts.merge.base_weights import requantized
from medqlora.artifacts.merge.live_model import LiveBase, quantized_modules
from medqlora.models.layers import experts, is_conv1d, is_falcon, linear_layers

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@torch.no_grad()
def give_live_values(model: "PreTrainedModel", base: LiveBase) -> None:
    """Rounds the weights of an unquantized model to those that the live model multiplies with, in place.

    Args:
        model: the base model, loaded without quantization on the host.
        base: how the live model holds it.
    """
    if base.quantization == "none":
        return
    names = quantized_modules(model)
    four_bits = base.quantization != "int8"
    for name, module in model.named_modules():
        if name in names:
            weight = module.get_parameter("weight")
            matrix = weight.T if is_conv1d(module) else weight  # bitsandbytes' layers hold [out, in]
            values = requantized(
                matrix.to(base.dtype).contiguous(), base.quantization, base.double_quantization
            )
            weight.copy_(values.T if is_conv1d(module) else values)
    if not four_bits:
        return  # what this project quantizes by itself has 4 bits alone
    own = [module.get_parameter("weight") for module in linear_layers(model).values() if is_falcon(module)]
    for parameter in [*own, *(expert.parameter for expert in experts(model))]:
        values = requantized(
            parameter.to(base.dtype).contiguous(), base.quantization, base.double_quantization
        )
        parameter.copy_(values.reshape(parameter.shape))


def merge_model(model: "PreTrainedModel", base: LiveBase, adapter: Path) -> nn.Module:
    """The model with the adapter merged into the live model's values.

    Args:
        model: the base model, loaded without quantization on the host. It is changed.
        base: how the live model holds it.
        adapter: folder in PEFT's format.
    """
    from peft import PeftModel

    give_live_values(model, base)
    wrapped = PeftModel.from_pretrained(model, str(adapter))
    merged: nn.Module = wrapped.merge_and_unload()
    return merged
