"""Finds NaN and infinite values in a base's weights while they are loaded.

Quantization hides them: a block of 64 weights with a NaN becomes 64 finite, wrong numbers, or 64 NaNs, depending on
the device. So each weight is checked before it is quantized.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from medqlora.compat.bitsandbytes import observed_quantization
from medqlora.errors import InputError
from medqlora.models.int4 import Int4State
from medqlora.models.quantization import quant_state

#: elements checked at a time: bounds the memory of the check
_CHUNK = 1 << 24


def is_finite(tensor: Tensor) -> bool:
    """Whether a floating-point tensor of any shape holds neither NaN nor infinity."""
    for part in tensor.detach().reshape(-1).split(_CHUNK):
        wide = part.float() if part.element_size() == 1 else part
        # the sum is cheaper: only where it overflows each element is checked
        if not bool(torch.isfinite(wide.sum(dtype=torch.float32))) and not bool(torch.isfinite(wide).all()):
            return False
    return True


@contextmanager
def watched_quantization() -> Iterator[list[tuple[int, ...]]]:
    """While entered, collects the shape of every weight with NaN or infinity that is quantized."""
    shapes: list[tuple[int, ...]] = []

    def observe(weight: Tensor) -> None:
        if weight.is_floating_point() and not weight.is_meta and not is_finite(weight):
            shapes.append(tuple(weight.shape))

    with observed_quantization(observe):
        yield shapes


def scales_are_finite(parameter: nn.Parameter) -> bool:
    """Whether a quantized parameter's scales hold neither NaN nor infinity."""
    return all(map(is_finite, _floats(parameter)))


def not_finite(model: nn.Module) -> list[str]:
    """Names of the parameters with NaN or infinity; of a quantized parameter the scales are checked."""
    return [name for name, parameter in model.named_parameters() if not scales_are_finite(parameter)]


def _floats(parameter: nn.Parameter) -> Iterator[Tensor]:
    """A parameter's floating-point numbers: its own, or its quantization's scales."""
    state = quant_state(parameter)
    tensors: list[object] = [getattr(parameter, "SCB", None)]  # the scales of int8
    if state is None:
        tensors.append(parameter)
    elif isinstance(state, Int4State):
        tensors.append(state.scales)
    else:  # packed 4-bit values may be stored as any type, and are no numbers of it
        nested = getattr(state.state2, "absmax", None)
        tensors += [state.absmax, state.offset, nested]
    for tensor in tensors:
        if isinstance(tensor, Tensor) and tensor.is_floating_point() and not tensor.is_meta:
            yield tensor


def check_finite(model: nn.Module, quantized: list[tuple[int, ...]], base: str, files: list[Path]) -> None:
    """Raises InputError where the base's weights hold NaN or infinity.

    Args:
        model: loaded.
        quantized: the shapes from `watched_quantization`.
        base: for the message.
        files: the local weight files, to name the tensor; may be empty.
    """
    names = not_finite(model)
    if not names and not quantized:
        return
    location = next(_in_files(files), None)
    if location is None:
        tensor = f"the weight '{names[0]}'" if names else f"a weight of shape {list(quantized[0])}"
        location = f"'{base}': {tensor}"
    raise InputError(
        f"--model.backend.base: {location} holds NaN or infinite values: the weights are damaged; copy or download the "
        "base again"
    )


def _in_files(files: list[Path]) -> Iterator[str]:
    """File and name of each tensor with NaN or infinity."""
    from safetensors import safe_open

    for file in files:
        if file.suffix != ".safetensors":
            continue
        with safe_open(file, framework="pt") as stored:
            for name in sorted(stored.keys()):
                tensor = stored.get_tensor(name)
                if tensor.is_floating_point() and not is_finite(tensor):
                    yield f"'{file}': the tensor '{name}'"
