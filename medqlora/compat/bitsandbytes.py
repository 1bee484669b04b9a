"""Parts of bitsandbytes 0.50 that its documentation does not promise."""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Protocol

import torch
from torch import Tensor, nn

#: the functions through which 4-bit and 8-bit weights are made; a test pins that loading uses them
_QUANTIZERS = ("quantize_4bit", "int8_vectorwise_quant")


class _Quantize(Protocol):
    def __call__(self, weight: Tensor, *arguments: object, **options: object) -> object: ...


def import_bitsandbytes() -> ModuleType:
    """bitsandbytes, imported without network access.

    On a CPU with AVX512-BF16 and with the package `kernels` installed, version 0.50 downloads a kernel from the Hub
    when it is imported, and warns where it can't. That kernel serves inference alone.
    """
    if "bitsandbytes" in sys.modules:
        return sys.modules["bitsandbytes"]
    kernels = sys.modules.get("kernels")
    logger = logging.getLogger("bitsandbytes.backends.cpu.ops")
    level = logger.level
    sys.modules["kernels"] = None  # type: ignore[assignment]  # makes `import kernels` fail meanwhile
    logger.setLevel(logging.ERROR)
    try:
        return import_module("bitsandbytes")
    finally:
        logger.setLevel(level)
        if kernels is None:
            del sys.modules["kernels"]
        else:
            sys.modules["kernels"] = kernels


def set_compute_dtype(layer: nn.Module, dtype: torch.dtype) -> None:
    """Makes a `Linear4bit` multiply in `dtype`, whatever the machine that quantized its weight used.

    bitsandbytes 0.50 sets these attributes at the first forward, from the type of the first input.
    """
    layer.compute_dtype = dtype  # type: ignore[assignment]  # Module's annotation knows tensors and modules alone
    layer.compute_type_is_set = True  # type: ignore[assignment]
    state = getattr(layer.weight, "quant_state", None)
    if state is not None:
        state.dtype = dtype


def keep_packed_weight(layer: nn.Module) -> None:
    """Stops a `Linear4bit` on a CPU from repacking its weight.

    On CPUs with AVX512-BF16, bitsandbytes 0.50 repacks the weight in place at the first forward in eval mode. What
    trains after that goes through a product without a backward: gradients are silently wrong.
    """
    layer.support_avx512bf16_for_cpu = False  # type: ignore[assignment]


@contextmanager
def observed_quantization(observe: Callable[[Tensor], None]) -> Iterator[None]:
    """While entered, calls `observe` with every weight before it is quantized.

    transformers 5 calls these functions of bitsandbytes 0.50 from several places and offers no hook before them.
    """
    functional = import_bitsandbytes().functional

    def observed(quantize: _Quantize) -> _Quantize:
        def call(weight: Tensor, *arguments: object, **options: object) -> object:
            observe(weight)
            return quantize(weight, *arguments, **options)

        return call

    originals = {name: getattr(functional, name) for name in _QUANTIZERS}
    for name, quantize in originals.items():
        setattr(functional, name, observed(quantize))
    try:
        yield
    finally:
        for name, quantize in originals.items():
            setattr(functional, name, quantize)


@contextmanager
def observed_weights(observe: Callable[[nn.Parameter], None]) -> Iterator[None]:
    """While entered, calls `observe` with every packed weight that a `Linear4bit` gets.

    transformers 5 quantizes or reads one weight after another and offers no hook between them.
    """
    linear4bit = import_bitsandbytes().nn.Linear4bit

    def observed(layer: nn.Module, name: str, value: object) -> None:
        nn.Module.__setattr__(layer, name, value)  # type: ignore[arg-type]  # Module's annotation, as above
        if isinstance(value, nn.Parameter) and getattr(value, "quant_state", None) is not None:
            observe(value)

    linear4bit.__setattr__ = observed
    try:
        yield
    finally:
        del linear4bit.__setattr__
