"""Finds NaN and infinite values in a base's weights as they are loaded.

Quantization hides them: a block of 64 weights with a NaN in it becomes 64 finite, wrong numbers, or 64 NaNs,
depending on the device. So each weight is looked at before it is quantized.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from medqlora.errors import InputError
from medqlora.models.quantization import import_bitsandbytes

#: elements looked at together: bounds the memory that it takes
_CHUNK = 1 << 24
#: bitsandbytes' functions through which 4-bit and 8-bit weights are made; a test pins that loading uses them
_QUANTIZERS = ("quantize_4bit", "int8_vectorwise_quant")


def is_finite(tensor: Tensor) -> bool:
    """Whether a floating-point tensor of any shape holds neither NaN nor infinity."""
    for part in tensor.detach().reshape(-1).split(_CHUNK):
        wide = part.float() if part.element_size() == 1 else part
        # the sum is the cheaper test; only where it overflows are the elements looked at
        if not bool(torch.isfinite(wide.sum(dtype=torch.float32))) and not bool(torch.isfinite(wide).all()):
            return False
    return True


@contextmanager
def watched_quantization() -> Iterator[list[tuple[int, ...]]]:
    """While it is entered, collects the shape of every weight with NaN or infinity that is quantized."""
    functional: Any = import_bitsandbytes().functional
    found: list[tuple[int, ...]] = []

    def watch(quantize: Callable[..., Any]) -> Callable[..., Any]:
        def watched(weight: Tensor, *args: Any, **options: Any) -> Any:
            if weight.is_floating_point() and not weight.is_meta and not is_finite(weight):
                found.append(tuple(weight.shape))
            return quantize(weight, *args, **options)

        return watched

    before = {name: getattr(functional, name) for name in _QUANTIZERS}
    for name, quantize in before.items():
        setattr(functional, name, watch(quantize))
    try:
        yield found
    finally:
        for name, quantize in before.items():
            setattr(functional, name, quantize)


def not_finite(model: nn.Module) -> list[str]:
    """The names of the parameters with NaN or infinity; of a quantized one its scales are looked at."""
    return [
        name for name, parameter in model.named_parameters() if not all(map(is_finite, _floats(parameter)))
    ]


def _floats(parameter: Any) -> Iterator[Tensor]:
    """A parameter's floating-point numbers: its own, or its quantization's scales."""
    state = getattr(parameter, "quant_state", None)
    scales: list[Any] = [getattr(parameter, "SCB", None)]
    if state is not None:
        nested = getattr(state, "state2", None)
        scales += [state.absmax, getattr(state, "offset", None), getattr(nested, "absmax", None)]
    else:  # packed 4-bit values may be stored as any type, and are no numbers of it
        scales.append(parameter)
    for one in scales:
        if isinstance(one, Tensor) and one.is_floating_point() and not one.is_meta:
            yield one


def check_finite(model: nn.Module, quantized: list[tuple[int, ...]], base: str, files: list[Path]) -> None:
    """Raises InputError where the base's weights hold NaN or infinity.

    Args:
        model: loaded.
        quantized: what `watched_quantization` has found.
        base: for the message.
        files: the local weight files, for the tensor's name; may be empty.
    """
    names = not_finite(model)
    if not names and not quantized:
        return
    where = next(_in_files(files), None)
    if where is None:
        tensor = f"the weight '{names[0]}'" if names else f"a weight of shape {list(quantized[0])}"
        where = f"'{base}': {tensor}"
    raise InputError(
        f"--model.backend.base: {where} holds NaN or infinite values: the weights are damaged; copy or download the "
        "base again"
    )


def _in_files(files: list[Path]) -> Iterator[str]:
    from safetensors import safe_open

    for file in files:
        if file.suffix != ".safetensors":
            continue
        with safe_open(file, framework="pt") as held:
            for name in sorted(held.keys()):
                tensor = held.get_tensor(name)
                if tensor.is_floating_point() and not is_finite(tensor):
                    yield f"'{file}': the tensor '{name}'"
