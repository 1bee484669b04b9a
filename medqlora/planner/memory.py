"""Bytes by part and phase, as torch counts them as allocated (the CUDA context, about half a GiB, is not in it).

Load is exact. Training with the fused engine follows what the engine keeps (`medqlora.fused`); its transient
part, and the native engines', were fitted to peaks on one H200 (torch 2.11, Llama-3-8B's shape).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Literal

from medqlora.models.lora import SEVEN_PROJECTIONS
from medqlora.planner.shape import Shape

GIB = 2**30
#: bitsandbytes: weights that share a scale, and scales that share one of theirs
_BLOCK, _NESTED_BLOCK, _STATE_BLOCK = 64, 256, 256
#: bitsandbytes keeps the 8-bit optimizers' state of smaller tensors in 32 bits
_LEAST_8BIT = 4096
#: what native engines keep a token and layer, over what the fused one keeps: Unsloth without checkpointing
_NATIVE_KEEPS = 1.31
#: layers' worth of activations that a native engine holds while it runs one again
_NATIVE_AGAIN = 1.8
#: weight groups that the fused engine dequantizes together
_GROUPS = (("q_proj", "k_proj", "v_proj"), ("o_proj",), ("gate_proj", "up_proj"), ("down_proj",))


@dataclass(frozen=True)
class Setting:
    """What decides the memory beside the shape.

    Attributes:
        quantization: nf4, fp4, int8 or none.
        double_quantization: of nf4 and fp4.
        width: bytes of what the quantized layers compute in: 2, or 4 for `--trainer.precision 32`.
        r, targets: of LoRA; None for all seven projections.
        optimizer: adamw_8bit, paged_adamw_8bit (in host memory when need be; counted whole) or adamw.
        engine: fused or native.
        checkpointing: none, full, offload, or a number of layers that compute again.
        embedding, head: on the device, or in host memory.
        cached: layers whose weights the fused engine keeps dequantized.
        shares: GPUs that the layers' quantized weights are spread over; 1 for all of them on each.
        tokens: of the largest micro-batch in training.
        loss_rows: completion tokens in it.
        score_tokens: of the largest pass in evaluation.
        prompt_tokens, rows, new_tokens: what is written at once: prompt tokens in all with padding, prompts,
            and new tokens each; rows 0 for none.
    """

    quantization: Literal["nf4", "fp4", "int8", "none"] = "nf4"
    double_quantization: bool = True
    width: int = 2
    r: int = 16
    targets: Sequence[str] | None = None
    optimizer: str = "adamw_8bit"
    engine: Literal["fused", "native"] = "fused"
    checkpointing: Literal["none", "full", "offload"] | int = "full"
    embedding: Literal["device", "host"] = "device"
    head: Literal["device", "host"] = "device"
    cached: int = 0
    shares: int = 1
    tokens: int = 2048
    loss_rows: int = 300
    score_tokens: int = 2048
    prompt_tokens: int = 0
    rows: int = 0
    new_tokens: int = 0


@dataclass(frozen=True)
class Plan:
    """Phase → part → bytes; phases are load, fit, validate and generate."""

    phases: Mapping[str, Mapping[str, int]]

    def total(self, phase: str) -> int:
        return sum(self.phases[phase].values())

    @property
    def peak(self) -> int:
        return max(map(self.total, self.phases))


def plan(shape: Shape, setting: Setting) -> Plan:
    """What each phase holds at its peak."""
    layer = sum(linear_bytes(out, into, setting) for out, into in shape.linears.values())
    base = {
        "quantized weights": ceil(shape.layers * layer / setting.shares),
        "embedding": shape.embedding_parameters * setting.width * _embedding_stays(shape, setting),
        "head": shape.head_parameters * setting.width * (setting.head == "device"),
        "norms and biases": shape.small_parameters * setting.width,
        "adapters": shape.lora_parameters(setting.r, setting.targets) * 4,
    }
    fused = setting.engine == "fused"
    workspace = {"dequantized group": workspace_bytes(shape, setting)}
    casts = {"adapters' casts": cast_bytes(shape, setting)} if fused else {}
    if fused and setting.cached:  # A and B lie beside and below the weights then
        casts["adapters' casts"] = (
            casts["adapters' casts"] * max(0, shape.layers - setting.cached) // shape.layers
        )
        casts["dequantized weights"] = cached_bytes(shape, setting)
    optimizer = {
        "optimizer": optimizer_bytes(shape, setting),
        # a buffer that stays: `training.flat`
        "gradients": shape.lora_parameters(setting.r, setting.targets) * 4,
    }
    if setting.shares > 1:  # the one that runs, and the one that is on its way
        workspace["gathered layers"] = min(2, shape.layers) * layer
    train = {
        **base,
        **casts,
        **optimizer,
        **workspace,
        "activations": activation_bytes(shape, setting),
    }
    # the head runs before the layers' backward, with all activations there but none of its workspace
    train["logits"] = max(0, _logits_bytes(shape, setting) - workspace["dequantized group"])
    kept = {**base, **casts, **optimizer, **workspace}
    score = {**kept, "activations": setting.score_tokens * _forward_bytes(shape, setting)}
    load = {**base, "gathered layers": layer} if setting.shares > 1 else base
    phases = {"load": load, "fit": train, "validate": score}
    if setting.rows:
        cache = 2 * shape.layers * shape.kv_heads * shape.head_dim * setting.width
        held = setting.prompt_tokens + setting.rows * setting.new_tokens
        phases["generate"] = {
            **kept,
            "activations": setting.prompt_tokens * _forward_bytes(shape, setting),
            "keys and values": 2 * cache * held,  # a cache that grows is copied: twice
            "logits": setting.rows * shape.vocabulary * (setting.width + 4),
        }
    return Plan(phases)


def linear_bytes(out: int, into: int, setting: Setting) -> int:
    """A quantized weight as bitsandbytes holds it: packed values, scales, their nested form and the codes."""
    count = out * into
    if setting.quantization == "none":
        return count * setting.width
    if setting.quantization == "int8":
        return count + 4 * out
    blocks = ceil(count / _BLOCK)
    code = 16 * 4
    if not setting.double_quantization:
        return ceil(count / 2) + 4 * blocks + code
    nested = 4 * ceil(blocks / _NESTED_BLOCK) + 256 * 4 + 4  # their scales, code and offset
    return ceil(count / 2) + blocks + nested + code


def optimizer_bytes(shape: Shape, setting: Setting) -> int:
    """Adam's two moments: 8 bits with a scale for every 256, or 32 bits."""
    total = 0
    for name in setting.targets or SEVEN_PROJECTIONS:
        for size in (setting.r * side for side in shape.linears.get(name, ())):
            if "8bit" in setting.optimizer and size >= _LEAST_8BIT:
                total += 2 * (size + 4 * ceil(size / _STATE_BLOCK))
            else:
                total += 2 * 4 * size
    return shape.layers * total


def cast_bytes(shape: Shape, setting: Setting) -> int:
    """The fused engine's copies of A (stacked) and B (block-diagonal) of each weight group."""
    total = 0
    for group in _GROUPS:
        names = [name for name in group if name in (setting.targets or SEVEN_PROJECTIONS)]
        rank = setting.r * len(names)
        outputs = sum(shape.linears[name][0] for name in group)
        total += rank * (shape.linears[group[0]][1] + outputs)
    return shape.layers * total * setting.width


def cached_bytes(shape: Shape, setting: Setting) -> int:
    """Weights that stay dequantized, each group with B beside it and A below it."""
    total = 0
    for group in _GROUPS:
        rank = _up(setting.r * sum(name in (setting.targets or SEVEN_PROJECTIONS) for name in group), 8)
        outputs, inputs = sum(shape.linears[name][0] for name in group), shape.linears[group[0]][1]
        total += (outputs + rank) * _up(inputs + rank, 64)
    return min(setting.cached, shape.layers) * total * setting.width


def workspace_bytes(shape: Shape, setting: Setting) -> int:
    """The largest group of weights while it is dequantized."""
    if setting.quantization == "none" or (setting.engine == "fused" and setting.cached >= shape.layers):
        return 0
    return setting.width * max(sum(_size(shape, name) for name in group) for group in _GROUPS)


def layer_bytes(shape: Shape, setting: Setting) -> int:
    """What the fused engine keeps of a layer, a token: its input, q, k and v, what the attention gave with
    its logsumexp, the residual, gate and up, and the adapters' inner products."""
    attention = (2 * shape.heads + 2 * shape.kv_heads) * shape.head_dim
    if shape.qk_norm:
        attention += (shape.heads + shape.kv_heads) * shape.head_dim  # q and k before their norms
    ranks = [
        setting.r * sum(name in (setting.targets or SEVEN_PROJECTIONS) for name in group) for group in _GROUPS
    ]
    inner = sum(_up(rank, 8) for rank in ranks)
    # gate's and up's products carry the adapters' along, in rows that begin at even places
    wide = _up(2 * shape.intermediate + ranks[2], 64)
    return (2 * shape.hidden + attention + wide + inner) * setting.width + 4 * shape.heads


def activation_bytes(shape: Shape, setting: Setting) -> int:
    """Of the largest micro-batch, at the beginning of its backward."""
    layer, token = layer_bytes(shape, setting), shape.hidden * setting.width
    asked = setting.checkpointing
    again = asked if isinstance(asked, int) else 0 if asked == "none" else shape.layers
    waiting = 0 if asked == "offload" else token
    if setting.engine == "native":
        layer = round(layer * _NATIVE_KEEPS)
        again = min(again, shape.layers)
        transient = round(layer * _NATIVE_AGAIN) if again else 0
        return setting.tokens * ((shape.layers - again) * layer + again * waiting + transient)
    again = min(again, shape.layers - 1)
    # the last layer runs behind its keys and values at the rows that carry loss alone
    last = token + 2 * shape.kv_heads * shape.head_dim * setting.width
    transient = setting.width * (shape.intermediate + 3 * shape.hidden) + (layer if again else 0)
    kept = (shape.layers - 1 - again) * layer + again * waiting + last + transient
    return setting.tokens * kept + setting.loss_rows * layer


def _embedding_stays(shape: Shape, setting: Setting) -> bool:
    """A weight that is the head's too leaves the device with both alone."""
    return setting.embedding == "device" or (shape.tied and setting.head == "device")


def _up(count: int, multiple: int) -> int:
    return ceil(count / multiple) * multiple


def _size(shape: Shape, name: str) -> int:
    out, into = shape.linears[name]
    return out * into


def _forward_bytes(shape: Shape, setting: Setting) -> int:
    """A token of a pass without gradients: gate, up and their product beside a few hidden rows."""
    return setting.width * (3 * shape.intermediate + 4 * shape.hidden)


def _logits_bytes(shape: Shape, setting: Setting) -> int:
    """A piece of the head's rows, and the gradient of all of them; or a piece of the head, at all rows."""
    if setting.head == "host":
        # medqlora.models.host_weights streams so many values at a time; logits in two types, and three sums
        piece = (1 << 25) // shape.hidden
        return (1 << 25) * setting.width + setting.loss_rows * (
            piece * (setting.width + 4) + shape.hidden * 12
        )
    rows = min(setting.loss_rows, max(1, (1 << 26) // shape.vocabulary))
    return rows * shape.vocabulary * setting.width + setting.loss_rows * shape.hidden * 6
