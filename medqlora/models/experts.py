"""4-bit quantization of weights that transformers leaves in 16 bits: a mixture's experts, Falcon's linear layers.

transformers 5 holds a layer's experts in parameters of three dimensions. Neither its quantizer nor PEFT's 4-bit
layers take those. Here such a parameter is stored in 4 bits and dequantized while its layer runs.

bitsandbytes' own `replace_parameter_4bit` is not used: PEFT 0.21 registers its update of a parameter as a second
parametrization, and removes it only where it is the first. Each forward would add the update once more.
"""

from typing import TYPE_CHECKING

import torch
from torch import nn

from medqlora.models.layers import Expert, base_model, block_child, experts, is_falcon, linear_layers
from medqlora.models.quantization import BaseQuantization, import_bitsandbytes, quant_state

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def quantize_experts(
    model: nn.Module, quantization: BaseQuantization, double_quantization: bool, device: torch.device
) -> int:
    """Stores every expert parameter of `model` in 4 bits, in place. Adapters on them stay.

    The experts of one layer exist in 16 bits while that layer runs. With activation checkpointing that is one layer
    at a time in the backward too; without it, autograd keeps every layer's dequantized experts.

    Args:
        model: a transformers causal language model, or a PEFT model around one.
        quantization: nf4 or fp4; any other does nothing.
        double_quantization: also quantize the scales.
        device: where the packed weights go.

    Returns:
        How many parameters were quantized.
    """
    if quantization not in ("nf4", "fp4"):
        return 0
    groups: dict[str, list[Expert]] = {}
    for expert in experts(model):
        groups.setdefault(block_child(expert.name), []).append(expert)
    modules = dict(base_model(model).named_modules())
    for name, members in groups.items():
        for expert in members:
            packed = _packed(expert.parameter, quantization, double_quantization, device)
            expert.module.register_parameter(expert.leaf, packed)
        _dequantize_while_running(modules[name], members)
    return sum(map(len, groups.values()))


def quantize_falcon(
    model: "PreTrainedModel",
    quantization: BaseQuantization,
    double_quantization: bool,
    device: torch.device,
    dtype: torch.dtype,
) -> None:
    """Replaces Falcon's linear layers by bitsandbytes'; call it before adapters are added.

    Args:
        model, quantization, double_quantization, device: as for `quantize_experts`.
        dtype: type of the layers' products.
    """
    if quantization not in ("nf4", "fp4"):
        return
    for name, module in linear_layers(model).items():
        if is_falcon(module):
            layer = import_bitsandbytes().nn.Linear4bit(
                1, 1, bias=False, compute_dtype=dtype, quant_type=quantization
            )
            layer.in_features, layer.out_features = module.in_features, module.out_features
            layer.weight = _packed(module.weight, quantization, double_quantization, device)  # type: ignore[arg-type]
            layer.bias = module.bias
            layer.train(module.training)
            model.set_submodule(name, layer)


def _packed(
    parameter: nn.Parameter, quantization: BaseQuantization, double_quantization: bool, device: torch.device
) -> nn.Parameter:
    """The same weights in 4 bits, with the `quant_state` that restores shape and type."""
    bitsandbytes = import_bitsandbytes()
    data, state = bitsandbytes.functional.quantize_4bit(
        parameter.data.contiguous().to(device),
        compress_statistics=double_quantization,
        quant_type=quantization,
    )
    return bitsandbytes.nn.Params4bit(
        data,
        requires_grad=False,
        quant_state=state,
        blocksize=state.blocksize,
        compress_statistics=double_quantization,
        quant_type=quantization,
        bnb_quantized=True,
    )


def _dequantize_while_running(module: nn.Module, members: list[Expert]) -> None:
    """Registers hooks: packed parameters become 16-bit ones before `module` runs, and are put back after it.

    Each run has new parameters: what autograd saved from an earlier run stays valid.
    """
    dequantize = import_bitsandbytes().functional.dequantize_4bit
    packed: list[nn.Parameter] = []

    def unpack(_: nn.Module, __: tuple[object, ...]) -> None:
        if packed:
            return  # a run inside a run
        for expert in members:
            stored = expert.module.get_parameter(expert.leaf)
            packed.append(stored)
            with torch.no_grad():
                weights = dequantize(stored.data, quant_state(stored))
            expert.module.register_parameter(expert.leaf, nn.Parameter(weights, requires_grad=False))

    def pack(_: nn.Module, __: tuple[object, ...], ___: object) -> None:
        for expert, stored in zip(members, packed, strict=False):
            expert.module.register_parameter(expert.leaf, stored)
        packed.clear()

    module.register_forward_pre_hook(unpack)
    # always_call: checkpointing ends its second forward by an exception once it has what it needs
    module.register_forward_hook(pack, always_call=True)
