"""Bytes of a fit on a CPU, as the process holds them: the terms that a GPU's allocated memory lacks, or has smaller.

Counted from the tensors that autograd saves in transformers' Llama with PEFT's LoRA in float32 (torch 2.13), and
compared with the peak resident memory of `fit`. It holds with `utils.host_memory.return_freed_memory`: glibc's default
keeps several times as much.
"""

from typing import TYPE_CHECKING

from medqlora.planner import native
from medqlora.planner.shape import Shape

if TYPE_CHECKING:
    from medqlora.planner.memory import Setting


def native_activations(shape: Shape, setting: "Setting", recomputed: int) -> int:
    """Activations of the largest micro-batch when its backward starts, and the head's logits or a layer's backward.

    Args:
        shape, setting: of the model and the fit.
        recomputed: layers that activation checkpointing recomputes.
    """
    backward = native.backward_bytes(shape, setting, recomputed)
    # gradients of gate, its activation, up and their product, and of two hidden rows
    gradients = setting.tokens * (4 * shape.intermediate + 2 * shape.hidden) * setting.width
    if recomputed:
        gradients += native.layer_bytes(shape, setting)
    logits = native.training_logits(shape, setting)
    return native.kept_bytes(shape, setting, recomputed) + max(backward, gradients, logits)


def stored_bytes(shape: Shape, setting: "Setting") -> int:
    """The base model's files, whose pages count while they are loaded."""
    return shape.base_parameters * setting.stored_width
