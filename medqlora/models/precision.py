"""The Trainer's precisions as types of torch, and float32 for comparisons."""

import torch
from torch import Tensor, nn

from medqlora.compat.bitsandbytes import set_compute_dtype
from medqlora.models.int4 import Int4Linear
from medqlora.models.layers import base_model

#: `--trainer.precision` → type of the quantized layers' products
DTYPES = {
    "16-mixed": torch.float16,
    "bf16-mixed": torch.bfloat16,
    "32-true": torch.float32,
    "32": torch.float32,
}
#: the name of the type of stored weights → the precision that keeps their values
PRECISIONS = {"float16": "16-mixed", "bfloat16": "bf16-mixed", "float32": "32-true"}
_HALVES = (torch.float16, torch.bfloat16)


def compute_in_float32(model: nn.Module) -> None:
    """Makes a loaded model compute in float32. The values of its weights stay as they were loaded.

    4-bit weights are dequantized to float32. 16-bit weights are cast while their module runs, one module at a time; the
    head's stay in float32, because the scorer casts hidden states to the head's type. Two models then differ by their
    weights, and not by the rounding of their products.

    Args:
        model: a transformers causal language model, or a PEFT model around one. It can't be trained afterwards.
    """
    base_model(model).get_output_embeddings().float()
    for module in model.modules():
        if isinstance(module, Int4Linear):
            module.compute_dtype = torch.float32
        elif hasattr(module, "compute_type_is_set"):  # bitsandbytes' Linear4bit
            set_compute_dtype(module, torch.float32)
        elif _half_parameters(module):
            forward = _Float32Forward()
            module.register_forward_pre_hook(forward.cast)
            module.register_forward_hook(forward.restore, always_call=True)


class _Float32Forward:
    """Casts a module's own 16-bit parameters before its forward, and puts the 16-bit ones back after it."""

    def __init__(self) -> None:
        self._stored: list[tuple[nn.Parameter, Tensor]] = []

    def cast(self, module: nn.Module, inputs: object) -> None:
        self._stored = [(parameter, parameter.data) for parameter in _half_parameters(module)]
        for parameter, values in self._stored:
            parameter.data = values.float()

    def restore(self, module: nn.Module, inputs: object, output: object) -> None:
        for parameter, values in self._stored:
            parameter.data = values
        self._stored = []


def _half_parameters(module: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in module.parameters(recurse=False) if parameter.dtype in _HALVES]
