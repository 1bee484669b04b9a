"""Bytes of a pass through transformers' own layers with PEFT's LoRA.

Counted from the tensors that exist in a pass of Llama and of Gemma 2 (torch 2.13, transformers 5.24), in bfloat16 and
in float32; `tests/unit/planner/test_native.py` counts them anew. On an H200 (torch 2.11) eight peaks were within 3%.
"""

from typing import TYPE_CHECKING

from medqlora.models.decoder import HEAD_ROWS
from medqlora.models.lora import SEVEN_PROJECTIONS
from medqlora.planner.shape import Shape

if TYPE_CHECKING:
    from medqlora.planner.memory import Setting

#: in float32: log-softmax, the gradient of the loss, and the logits' own gradient; with a cap its tanh too
_LOGITS_TRAINING = 3
#: in float32: logits and their log-softmax; with a cap its tanh too
_LOGITS_SCORING = 2
#: the masks of eager attention: of full layers and of sliding ones
_EAGER_MASKS = 2
#: cuBLAS' workspaces on Hopper, of the forward's thread and of autograd's; on other GPUs a quarter
CUBLAS_BYTES = 2 * 32 * 2**20


def saved_layer_bytes(shape: Shape, setting: "Setting") -> int:
    """What autograd saves of a layer per token, without `square_bytes`.

    Each norm's input in float32; the norms' outputs for LoRA's A; queries, keys and values with a head each, and the
    attention's output; gate, its activation, up, and their product; the inputs times LoRA's A; the logsumexp.
    """
    return _attention_part(shape, setting) + _mlp_part(shape, setting)


def layer_bytes(shape: Shape, setting: "Setting") -> int:
    """What autograd saves of a layer in training."""
    return setting.tokens * saved_layer_bytes(shape, setting) + square_bytes(shape, setting)


def square_bytes(shape: Shape, setting: "Setting") -> int:
    """The part of it that grows with the square of the tokens.

    sdpa makes a mask of its own from the boolean one. Eager attention saves the scores of each head: tanh of a cap, the
    softmax in float32, and its copy in 16 bits.
    """
    tokens = setting.tokens
    if setting.attention == "sdpa":
        return tokens**2 * setting.width
    if setting.attention != "eager":
        return 0
    saved = 4 + setting.width * (setting.width < 4) + setting.width * shape.caps_attention
    return shape.heads * tokens**2 * saved


def backward_bytes(shape: Shape, setting: "Setting", recomputed: int) -> int:
    """The most that a layer's backward needs beside `kept_bytes`; where layers are recomputed, with the layer itself.

    That is at the layer's end, with gradients of the MLP's product and of hidden rows; or in its attention, where the
    MLP's tensors are freed, with two gradients of the scores in float32, and on a GPU the softmax's product of gradient
    and output. Gemma 2's layers end with a norm, as every model does: its backward holds five hidden rows in float32.
    """
    width, tokens = setting.width, setting.tokens
    end = tokens * (shape.intermediate + 3 * shape.hidden) * width
    if not recomputed or shape.norms > 2:
        end = max(end, tokens * 20 * shape.hidden)
    attention = 0
    if setting.attention == "eager":
        values = (12 if setting.device == "cuda" else 8) - width * (width < 4)
        attention = shape.heads * tokens**2 * values - tokens * _mlp_part(shape, setting)
    return max(end, attention) + (layer_bytes(shape, setting) if recomputed else 0)


def kept_bytes(shape: Shape, setting: "Setting", recomputed: int) -> int:
    """Activations when the backward starts: complete layers, or the inputs of recomputed ones, and the masks of all."""
    tokens, row = setting.tokens, setting.tokens * shape.hidden
    kept = (shape.layers - recomputed) * layer_bytes(shape, setting) + recomputed * row * setting.width
    if (
        recomputed
    ):  # the last norm's input and output; else the first norm, whose input needs no gradient, lacks as much
        kept += row * (4 + setting.width)
    if setting.width < 4:  # autocast's copies of A and B, which the backward of complete layers reads
        casts = shape.lora_parameters(setting.r, setting.targets) * setting.width
        kept += casts * (shape.layers - recomputed) // shape.layers
    return kept + _masks(setting, tokens)


def training_logits(shape: Shape, setting: "Setting") -> int:
    """The logits of one piece of the loss, and what its backward adds."""
    count = _LOGITS_TRAINING + shape.caps_logits
    return count * min(setting.loss_rows, HEAD_ROWS) * shape.vocabulary * 4


def scoring_bytes(shape: Shape, setting: "Setting") -> int:
    """A pass that scores: the layers' forward with its mask and scores, or the logits of one piece."""
    tokens = setting.score_tokens
    forward = max(tokens * forward_bytes(shape, setting), forward_scores(shape, setting, tokens))
    if setting.attention == "sdpa":
        forward += (1 + setting.width) * tokens**2  # boolean, and a layer's own
    hidden = tokens * shape.hidden * setting.width
    logits = (_LOGITS_SCORING + shape.caps_logits) * HEAD_ROWS * shape.vocabulary * 4
    return max(forward, hidden + logits)


def forward_bytes(shape: Shape, setting: "Setting") -> int:
    """Bytes per token of a pass without gradients: gate, up, their product and a few hidden rows."""
    return setting.width * (3 * shape.intermediate + 4 * shape.hidden)


def forward_scores(shape: Shape, setting: "Setting", tokens: int) -> int:
    """Eager attention in a pass without gradients over a row: queries, keys and values with a head each, hidden rows,
    and the scores as they are, in float32, and their softmax; 0 with another attention."""
    if setting.attention != "eager":
        return 0
    each = setting.width + 4 + 4 * (setting.width < 4)
    row = (4 * shape.heads * shape.head_dim + 2 * shape.hidden) * setting.width
    return shape.heads * tokens**2 * each + tokens * row + _masks(setting, tokens)


def _attention_part(shape: Shape, setting: "Setting") -> int:
    heads = shape.heads * shape.head_dim
    values = (shape.hidden + 4 * heads + setting.r * _adapted(setting, SEVEN_PROJECTIONS[:4])) * setting.width
    if shape.qk_norm:
        values += 4 * (shape.heads + shape.kv_heads) * shape.head_dim
    return values + _norms(shape) + (0 if setting.attention == "eager" else 4 * shape.heads)


def _mlp_part(shape: Shape, setting: "Setting") -> int:
    rank = setting.r * _adapted(setting, SEVEN_PROJECTIONS[4:])
    return (shape.hidden + 4 * shape.intermediate + rank) * setting.width + _norms(shape)


def _norms(shape: Shape) -> int:
    """The inputs of half the layer's norms in float32, and their reciprocal roots."""
    return shape.norms // 2 * 4 * (shape.hidden + 1)


def _adapted(setting: "Setting", names: tuple[str, ...]) -> int:
    return sum(name in (setting.targets or SEVEN_PROJECTIONS) for name in names)


def _masks(setting: "Setting", tokens: int) -> int:
    """Masks that all layers share."""
    if setting.attention == "eager":
        return _EAGER_MASKS * tokens**2 * setting.width
    return tokens**2 * (setting.attention == "sdpa")  # boolean
