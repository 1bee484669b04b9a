"""Quantization by bitsandbytes: its settings, and the shape and number of packed weights."""

from typing import TYPE_CHECKING

import torch
from torch import nn

from medqlora.compat.bitsandbytes import import_bitsandbytes, keep_packed_weight, set_compute_dtype
from medqlora.config.backends import Quantization
from medqlora.errors import InputError

if TYPE_CHECKING:
    from bitsandbytes.functional import QuantState
    from transformers import BitsAndBytesConfig, PretrainedConfig

__all__ = [
    "Quantization",
    "bitsandbytes_config",
    "check_quantization",
    "count_parameters",
    "import_bitsandbytes",
    "matrix_shape",
    "quant_state",
    "settle",
    "stored_quantization",
]


def bitsandbytes_config(
    quantization: Quantization,
    double_quantization: bool,
    dtype: torch.dtype,
    skip: list[str] | None = None,
) -> "BitsAndBytesConfig | None":
    """transformers' `BitsAndBytesConfig`; None for no quantization.

    NF4 and double quantization: Dettmers et al., 2023, https://arxiv.org/abs/2305.14314.

    Args:
        quantization, double_quantization: the backend's options.
        dtype: type of the 4-bit layers' products.
        skip: names of linear layers that stay in 16 bits, the head included; None for the head alone.
    """
    if quantization == "none":
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


def stored_quantization(config: "PretrainedConfig") -> str | None:
    """The quantization of the base's files: "nf4", "fp4", "int8", another method's name, or None."""
    stored = getattr(config, "quantization_config", None)
    if stored is None:
        return None
    stored = stored if isinstance(stored, dict) else stored.to_dict()
    if stored.get("load_in_4bit") or stored.get("_load_in_4bit"):
        return str(stored.get("bnb_4bit_quant_type", "fp4"))
    if stored.get("load_in_8bit") or stored.get("_load_in_8bit"):
        return "int8"
    return str(stored.get("quant_method", "unknown"))


def check_quantization(base: str, config: "PretrainedConfig", quantization: Quantization) -> None:
    """Raises InputError when the base's files are quantized in another way than `quantization`."""
    stored = stored_quantization(config)
    if stored is not None and stored != quantization:
        fix = "use a base that isn't quantized, or one quantized by bitsandbytes"
        if stored in ("nf4", "fp4", "int8"):
            fix = f"pass --model.backend.quantization {stored}"
        raise InputError(
            f"--model.backend.quantization {quantization}: the files of '{base}' are quantized already, as "
            f"{stored}: {fix}"
        )


def settle(model: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Makes every 4-bit layer compute in `dtype`, and on a CPU keep its bytes as they are.

    A base that was quantized earlier brings its own compute type. See `keep_packed_weight` for the CPU.
    """
    linear4bit = import_bitsandbytes().nn.Linear4bit
    for module in model.modules():
        if isinstance(module, linear4bit):
            set_compute_dtype(module, dtype)
            if device.type == "cpu":
                keep_packed_weight(module)


def quant_state(parameter: torch.Tensor) -> "QuantState | None":
    """bitsandbytes' scales and shape of a packed 4-bit weight; None for any other tensor."""
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
