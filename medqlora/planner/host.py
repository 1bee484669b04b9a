"""Bytes of a fit on a CPU, as the process holds them: the terms that a GPU's allocated memory lacks, or has smaller.

Counted from the tensors that autograd saves in transformers' Llama with PEFT's LoRA in float32 (torch 2.13), and
compared with the peak resident memory of `fit`. It holds with `utils.host_memory.return_freed_memory`: glibc's default
keeps several times as much.
"""

from typing import TYPE_CHECKING

from medqlora.models.decoder import HEAD_ROWS
from medqlora.models.lora import SEVEN_PROJECTIONS
from medqlora.planner.shape import Shape

if TYPE_CHECKING:
    from medqlora.planner.memory import Setting

#: log-softmax, the gradient of the loss, and the logits' own gradient exist together, in float32
_LOGITS_TRAINING = 3
#: logits and their log-softmax
_LOGITS_SCORING = 2


def saved_layer_bytes(shape: Shape, setting: "Setting") -> int:
    """What autograd saves of a layer per token, without its attention mask.

    The residual before each norm, and each norm's output for LoRA's A; queries, keys and values with a head each, and
    the attention's output; gate, its activation, up, and their product; the inputs times LoRA's A; the logsumexp.
    """
    heads = shape.heads * shape.head_dim
    values = 4 * shape.hidden + 4 * heads + 4 * shape.intermediate
    if shape.qk_norm:
        values += (shape.heads + shape.kv_heads) * shape.head_dim
    values += setting.r * len(setting.targets or SEVEN_PROJECTIONS)
    return values * setting.width + 4 * shape.heads


def mask_bytes(setting: "Setting") -> int:
    """A layer's attention mask: T² values, since each layer makes its own from the boolean one, and saves it."""
    return setting.tokens**2 * setting.width if setting.masked else 0


def native_activations(shape: Shape, setting: "Setting", recomputed: int) -> int:
    """Activations of the largest micro-batch when its backward starts, and the head's logits or a layer's backward.

    Args:
        recomputed: layers that activation checkpointing recomputes.
    """
    layer = setting.tokens * saved_layer_bytes(shape, setting) + mask_bytes(setting)
    inputs = setting.tokens * shape.hidden * setting.width
    kept = (shape.layers - recomputed) * layer + recomputed * inputs
    # gradients of gate, its activation, up and their product, and of two hidden rows
    backward = setting.tokens * (4 * shape.intermediate + 2 * shape.hidden) * setting.width
    if recomputed:
        backward += layer
    return kept + max(backward, training_logits(shape, setting)) + setting.tokens**2 * setting.masked


def training_logits(shape: Shape, setting: "Setting") -> int:
    """The logits of one piece of the loss, and what its backward adds."""
    return _LOGITS_TRAINING * min(setting.loss_rows, HEAD_ROWS) * shape.vocabulary * 4


def scoring_bytes(shape: Shape, setting: "Setting") -> int:
    """A pass that scores: the layers' forward with its mask, or the logits of one piece."""
    forward = setting.score_tokens * setting.width * (3 * shape.intermediate + 4 * shape.hidden)
    forward += 5 * setting.score_tokens**2 * setting.masked  # boolean and float32
    hidden = setting.score_tokens * shape.hidden * setting.width
    return max(forward, hidden + _LOGITS_SCORING * HEAD_ROWS * shape.vocabulary * 4)


def stored_bytes(shape: Shape, setting: "Setting") -> int:
    """The base model's files, whose pages count while they are loaded."""
    return shape.base_parameters * setting.stored_width
