"""How bitsandbytes holds a base's weights, and how many parameters those are."""

import logging
import sys
from importlib import import_module
from typing import Any

import torch
from torch import nn

from medqlora.config.backends import Quantization
from medqlora.errors import InputError


def import_bitsandbytes() -> Any:
    """bitsandbytes, imported without its reach for the network.

    On a CPU with AVX512-BF16 and where the package `kernels` is installed, version 0.50 fetches a kernel
    from the Hub when it is imported, and complains where it isn't. That kernel is for inference alone.
    """
    if "bitsandbytes" in sys.modules:
        return sys.modules["bitsandbytes"]
    kernels = sys.modules.get("kernels")
    logger = logging.getLogger("bitsandbytes.backends.cpu.ops")
    level = logger.level
    sys.modules["kernels"] = None  # type: ignore[assignment]  # makes the import fail for now
    logger.setLevel(logging.ERROR)
    try:
        return import_module("bitsandbytes")
    finally:
        logger.setLevel(level)
        if kernels is None:
            del sys.modules["kernels"]
        else:
            sys.modules["kernels"] = kernels


def bitsandbytes_config(
    quantization: Quantization,
    double_quantization: bool,
    dtype: torch.dtype,
    skip: list[str] | None = None,
) -> Any:
    """transformers' `BitsAndBytesConfig`, None for no quantization.

    NF4 and double quantization: Dettmers et al., 2023, https://arxiv.org/abs/2305.14314.

    Args:
        quantization, double_quantization: as the backend's options.
        dtype: what the 4-bit layers multiply in.
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


def stored_quantization(config: Any) -> str | None:
    """How the base's files are quantized already: "nf4", "fp4", "int8", another method's name, or None."""
    stored = getattr(config, "quantization_config", None)
    if stored is None:
        return None
    stored = stored if isinstance(stored, dict) else stored.to_dict()
    if stored.get("load_in_4bit") or stored.get("_load_in_4bit"):
        return str(stored.get("bnb_4bit_quant_type", "fp4"))
    if stored.get("load_in_8bit") or stored.get("_load_in_8bit"):
        return "int8"
    return str(stored.get("quant_method", "unknown"))


def check_quantization(base: str, config: Any, quantization: Quantization) -> None:
    """Raises InputError when the base's files are quantized in another way than asked for."""
    stored = stored_quantization(config)
    if stored is not None and stored != quantization:
        fix = f"pass --model.backend.quantization {stored}" if stored in ("nf4", "fp4", "int8") else "use"
        fix = fix if fix != "use" else "use a base that isn't quantized, or one quantized by bitsandbytes"
        raise InputError(
            f"--model.backend.quantization {quantization}: the files of '{base}' are quantized already, as "
            f"{stored}: {fix}"
        )


def settle(model: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Makes every 4-bit layer compute in `dtype`, and keeps its bytes as they are on a CPU.

    A base that was quantized earlier brings the compute type of that day with it. And on CPUs with
    AVX512-BF16, bitsandbytes 0.50 repacks a `Linear4bit`'s weight in place at its first forward in eval
    mode; what trains after that goes through a product that has no backward, and the gradients are
    silently wrong. So the repacking is switched off before any forward.
    """
    linear4bit = import_bitsandbytes().nn.Linear4bit

    for module in model.modules():
        if isinstance(module, linear4bit):
            weight: Any = module.weight
            module.compute_dtype = dtype
            module.compute_type_is_set = True
            if weight.quant_state is not None:
                weight.quant_state.dtype = dtype
            if device.type == "cpu":
                module.support_avx512bf16_for_cpu = False


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """(trainable, total) parameters; a 4-bit weight counts as the matrix that it stands for."""
    trainable = total = 0
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        count = state.shape.numel() if state is not None else parameter.numel()
        total += count
        trainable += count if parameter.requires_grad else 0
    return trainable, total
