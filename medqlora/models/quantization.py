"""Quantization: bitsandbytes' settings, what a base's files have, and the shape and number of packed weights."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast, get_args

import torch
from torch import nn

from medqlora.compat.bitsandbytes import import_bitsandbytes, keep_packed_weight, set_compute_dtype
from medqlora.config.backends import BaseQuantization, Quantization
from medqlora.config.stored_quantization import INT4, check_stored, stored_method
from medqlora.models.int4 import Int4Linear, Int4State

if TYPE_CHECKING:
    from bitsandbytes.functional import QuantState
    from transformers import BitsAndBytesConfig, PretrainedConfig

__all__ = [
    "INT4",
    "BaseQuantization",
    "Quantization",
    "bitsandbytes_config",
    "check_quantization",
    "count_parameters",
    "import_bitsandbytes",
    "matrix_shape",
    "quant_state",
    "settle",
    "stored_config",
    "stored_quantization",
]


def bitsandbytes_config(
    quantization: BaseQuantization,
    double_quantization: bool,
    dtype: torch.dtype,
    skip: list[str] | None = None,
) -> "BitsAndBytesConfig | None":
    """transformers' `BitsAndBytesConfig`; None for no quantization, and for the 4-bit integers of a base's own files.

    NF4 and double quantization: Dettmers et al., 2023, https://arxiv.org/abs/2305.14314.

    Args:
        quantization, double_quantization: the backend's options.
        dtype: type of the 4-bit layers' products.
        skip: names of linear layers that stay in 16 bits, the head included; None for the head alone.
    """
    if quantization == "none" or quantization in INT4:
        return None
    from transformers import BitsAndBytesConfig

    if quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skip)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quantization,
        bnb_4bit_use_double_quant=double_quantization,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=skip,
    )


def stored_config(config: "PretrainedConfig") -> Mapping[str, object] | None:
    """The `quantization_config` of the base's config.json; None where it has none."""
    stored = getattr(config, "quantization_config", None)
    if stored is None or isinstance(stored, dict):
        return stored
    return cast("Mapping[str, object]", stored.to_dict())


def stored_quantization(config: "PretrainedConfig") -> str | None:
    """The quantization of the base's files: nf4, fp4, int8, gptq, awq, another method's name, or None."""
    return stored_method(stored_config(config))


def check_quantization(
    base: str,
    config: "PretrainedConfig",
    quantization: BaseQuantization,
    taken: tuple[str, ...] = get_args(BaseQuantization),
) -> None:
    """Raises InputError when the base's files are quantized in another way than `quantization`, or can't be read.

    Args:
        taken: the quantizations that the backend takes.
    """
    check_stored(stored_config(config), base, quantization, taken)


def settle(model: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Makes every 4-bit layer compute in `dtype`, and on a CPU keep its bytes as they are.

    A base that was quantized earlier brings its own compute type. See `keep_packed_weight` for the CPU.
    """
    linear4bit = import_bitsandbytes().nn.Linear4bit
    for module in model.modules():
        if isinstance(module, Int4Linear):
            module.compute_dtype = dtype
        elif isinstance(module, linear4bit):
            set_compute_dtype(module, dtype)
            if device.type == "cpu":
                keep_packed_weight(module)


def quant_state(parameter: torch.Tensor) -> "QuantState | Int4State | None":
    """The scales and the shape of a packed 4-bit weight; None for any other tensor."""
    return getattr(parameter, "quant_state", None)


def matrix_shape(parameter: torch.Tensor) -> torch.Size:
    """A weight's shape; for a packed 4-bit weight that of the matrix that it stands for."""
    state = quant_state(parameter)
    return parameter.shape if state is None else state.shape


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """(trainable, total) parameters; a 4-bit weight counts as the matrix that it stands for."""
    trainable = total = 0
    for parameter in model.parameters():
        count = matrix_shape(parameter).numel()
        total += count
        trainable += count if parameter.requires_grad else 0
    return trainable, total
