"""4-bit weights that transformers' quantizer leaves in 16 bits: a mixture's experts, and Falcon's linear layers.

transformers 5 holds a layer's experts in parameters of three dimensions, and neither its quantizer nor PEFT's 4-bit
layers know them. Here such a parameter is stored in 4 bits and dequantized while its layer runs.

bitsandbytes' own `replace_parameter_4bit` is not used: PEFT 0.21 puts its update of a parameter on as a second
parametrization, and takes it off again only where it is the first. Each forward would add the update once more.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from medqlora.models.layers import Expert, base_model, block_child, experts, is_falcon, linear_layers
from medqlora.models.quantization import Quantization, import_bitsandbytes


def quantize_experts(
    model: Any, quantization: Quantization, double_quantization: bool, device: torch.device
) -> int:
    """Stores every expert parameter of `model` in 4 bits, in place; adapters on them stay.

    The experts of one layer exist in 16 bits while that layer runs. With activation checkpointing that is one layer
    at a time in the backward too; without it, autograd keeps every layer's dequantized experts.

    Args:
        model: a transformers causal language model, or a PEFT model around one.
        quantization: nf4 or fp4; nothing is done for any other.
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
            leaf = expert.name.rpartition(".")[2]
            expert.module._parameters[leaf] = _packed(
                expert.parameter, quantization, double_quantization, device
            )
        _dequantize_while_running(modules[name], members)
    return sum(map(len, groups.values()))


def quantize_falcon(
    model: Any,
    quantization: Quantization,
    double_quantization: bool,
    device: torch.device,
    dtype: torch.dtype,
) -> None:
    """Puts bitsandbytes' layers in the place of Falcon's, before any adapter is on.

    Args:
        model, quantization, double_quantization, device: as of `quantize_experts`.
        dtype: what the layers multiply in.
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
    parameter: nn.Parameter, quantization: Quantization, double_quantization: bool, device: torch.device
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
    """Hooks that put 16-bit parameters in the place of the packed ones before `module` runs, and back after it.

    They are new parameters at every run: what autograd has saved of one stays as it was.
    """
    dequantize: Callable[..., torch.Tensor] = import_bitsandbytes().functional.dequantize_4bit
    owners = [(expert.module, expert.name.rpartition(".")[2]) for expert in members]
    packed: list[nn.Parameter] = []

    def unpack(_: nn.Module, __: Any) -> None:
        if packed:
            return  # a run inside a run
        for owner, leaf in owners:
            stored: Any = owner._parameters[leaf]
            packed.append(stored)
            with torch.no_grad():
                weights = dequantize(stored.data, stored.quant_state)
            owner._parameters[leaf] = nn.Parameter(weights, requires_grad=False)

    def pack(_: nn.Module, __: Any, ___: Any) -> None:
        for (owner, leaf), stored in zip(owners, packed, strict=False):
            owner._parameters[leaf] = stored
        packed.clear()

    module.register_forward_pre_hook(unpack)
    # always: checkpointing ends its second forward by an exception as soon as it has what it needs
    module.register_forward_hook(pack, always_call=True)
