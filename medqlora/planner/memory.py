"""Bytes by part and phase, as torch counts allocated memory: without the CUDA context of about half a GiB.

On a CPU they are those of the process (`planner.host`).
The load phase is exact. Training counts the saved tensors of the fused engine (`medqlora.fused`), and of transformers'
layers (`planner.native`). The fused engine's transient part, and Unsloth's activations, are fitted to peaks on an H200
(torch 2.11, Llama-3-8B's shape).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Literal

from medqlora.config.backends import BaseQuantization
from medqlora.config.stored_quantization import INT4
from medqlora.fused.buckets import padded_rows, padded_tokens
from medqlora.fused.group import RANK_MULTIPLE, ROW_MULTIPLE
from medqlora.fused.head import PIECE_LOGITS
from medqlora.fused.layer import WEIGHT_GROUPS
from medqlora.models.host_weights import PIECE_VALUES
from medqlora.models.lora import SEVEN_PROJECTIONS
from medqlora.planner import host, native
from medqlora.planner.generation import Generation, decoding_parts
from medqlora.planner.shape import Shape

GIB = 2**30
#: bitsandbytes: weights per scale, scales per nested scale, optimizer values per scale
_BLOCK, _NESTED_BLOCK, _STATE_BLOCK = 64, 256, 256
#: bitsandbytes keeps the optimizer state of smaller tensors in 32 bits
_LEAST_8BIT = 4096
#: activations of Unsloth relative to the fused engine's: fitted without checkpointing
_UNSLOTH_FACTOR = 1.31
#: workspaces of the capturing stream, and what a shared pool leaves unused: measured on an H200
GRAPHS_BYTES = 100 * 2**20
#: memory of the graphs themselves, which torch does not count: about 10 MiB a size of micro-batches
GRAPHS_OUTSIDE_BYTES = 256 * 2**20
#: layers' worth of activations that Unsloth holds while it recomputes one
_UNSLOTH_TRANSIENT = 1.8


@dataclass(frozen=True)
class Setting:
    """The settings that determine memory, beside the shape.

    Attributes:
        quantization: nf4, fp4, int8, none, gptq or awq.
        double_quantization: of nf4 and fp4.
        group_size, act_order: of gptq and awq, as `Int4Layout` has them.
        width: bytes per value in the quantized layers' products: 2, or 4 for `--trainer.precision 32`.
        r, targets: of LoRA; None for all seven projections.
        optimizer: adamw_8bit, paged_adamw_8bit (counted in full, although it may use host memory) or adamw.
        engine: fused or native.
        checkpointing: none, full, offload, or the number of recomputed layers.
        embedding, head: on the device or in host memory.
        cached: number of layers whose weights the fused engine keeps dequantized.
        graphs: whether training steps run as CUDA graphs, which keep a pass's memory.
        device: cuda counts what torch allocates; cpu the memory of the process.
        process: bytes of the process before the base model is loaded; of a cpu.
        stored_width: bytes per weight in the base model's files; of a cpu.
        attention: of a native engine: transformers' sdpa (each layer makes a mask of its own), eager (each layer keeps
            its scores) or flash; or Unsloth's layers.
        shares: number of GPUs over which the layers' quantized weights are sharded; 1 for no sharding.
        tokens: of the largest micro-batch in training.
        loss_rows: completion tokens in it.
        score_tokens: of the largest pass in evaluation.
        decodes: whether the decode engine runs the evaluations.
        prompt_tokens, rows, new_tokens: of the answers generated together: all prompt tokens with padding, the
            number of prompts, and new tokens per prompt; rows 0 for none.
        cache_tokens: tokens of the decode engine's cache.
    """

    quantization: BaseQuantization = "nf4"
    double_quantization: bool = True
    group_size: int = 128
    act_order: bool = False
    width: int = 2
    r: int = 16
    targets: Sequence[str] | None = None
    optimizer: str = "adamw_8bit"
    engine: Literal["fused", "native"] = "fused"
    checkpointing: Literal["none", "full", "offload"] | int = "full"
    embedding: Literal["device", "host"] = "device"
    head: Literal["device", "host"] = "device"
    cached: int = 0
    graphs: bool = False
    device: Literal["cuda", "cpu"] = "cuda"
    process: int = 0
    stored_width: int = 2
    attention: Literal["sdpa", "eager", "flash", "unsloth"] = "unsloth"
    decodes: bool = False
    shares: int = 1
    tokens: int = 2048
    loss_rows: int = 300
    score_tokens: int = 2048
    prompt_tokens: int = 0
    rows: int = 0
    new_tokens: int = 0
    cache_tokens: int = 0


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
    """The bytes of each phase at its peak."""
    layer = sum(linear_bytes(out, into, setting) for out, into in shape.linears.values())
    adapters = shape.lora_parameters(setting.r, setting.targets) * 4
    base = {
        "quantized weights": ceil(shape.layers * layer / setting.shares),
        "embedding": shape.embedding_parameters * setting.width * _embedding_on_device(shape, setting),
        "head": shape.head_parameters * setting.width * (setting.head == "device"),
        "norms and biases": shape.small_parameters * setting.width,
        "adapters": adapters,
        **({"vision tower": shape.vision * setting.width} if shape.vision else {}),
    }
    casts = {"adapters' casts": cast_bytes(shape, setting)} if setting.engine == "fused" else {}
    if casts and setting.cached:  # cached layers hold A and B with their weights
        casts["adapters' casts"] = (
            casts["adapters' casts"] * max(0, shape.layers - setting.cached) // shape.layers
        )
        casts["dequantized weights"] = cached_bytes(shape, setting)
    workspace = {"dequantized group": workspace_bytes(shape, setting)}
    if setting.shares > 1:  # the layer in use, and the next one
        workspace["gathered layers"] = min(2, shape.layers) * layer
    kept = {
        **base,
        **casts,
        "optimizer": optimizer_bytes(shape, setting),
        "gradients": adapters,  # a permanent buffer: `training.flat`
        **workspace,
    }
    if setting.device == "cpu" and setting.engine == "native":
        return _host_plan(shape, setting, base, kept)
    if setting.engine == "native" and setting.attention != "unsloth":
        return _native_plan(shape, setting, base, kept)
    trained = setting
    if setting.graphs:
        tokens = padded_tokens(setting.tokens)
        trained = replace(setting, tokens=tokens, loss_rows=padded_rows(tokens, setting.loss_rows))
    activations = activation_bytes(shape, trained)
    # the head runs before the layers' backward, with all activations but without the workspace
    logits = max(0, _logits_bytes(shape, trained) - workspace["dequantized group"])
    score = setting.score_tokens * native.forward_bytes(shape, setting)
    phases = {
        "load": {**base, "gathered layers": layer} if setting.shares > 1 else base,
        "fit": {**kept, "activations": activations, "logits": logits},
        "validate": {**kept, "activations": score},
    }
    if setting.rows:
        phases["generate"] = {**kept, **_generation_parts(shape, setting)}
    if setting.graphs:
        phases["fit"] = {**phases["fit"], "CUDA graphs": GRAPHS_BYTES}
        # they keep the memory of a pass
        held = GRAPHS_BYTES + activations + logits + workspace["dequantized group"]
        for name in phases.keys() & {"validate", "generate"}:
            phases[name] = {**phases[name], "CUDA graphs": held}
    return Plan(phases)


def _native_plan(shape: Shape, setting: Setting, base: dict[str, int], kept: dict[str, int]) -> Plan:
    """The phases of transformers' layers on a GPU."""
    recomputed = min(recomputed_layers(shape, setting), shape.layers)
    kept = {**kept, "cuBLAS": native.CUBLAS_BYTES}
    activations = native.kept_bytes(shape, setting, recomputed)
    backward = native.backward_bytes(shape, setting, recomputed)
    # the head runs before the layers' backward, without the workspace
    beside = backward + kept["dequantized group"]
    phases = {
        "load": base,
        "fit": {
            **kept,
            "activations": activations + backward,
            "logits": max(0, native.training_logits(shape, setting) - beside),
        },
        "validate": {**kept, "activations": native.scoring_bytes(shape, setting)},
    }
    if setting.shares > 1:
        phases["load"] = {**base, "gathered layers": kept["gathered layers"] // min(2, shape.layers)}
    if setting.rows:
        phases["generate"] = {**kept, **_generation_parts(shape, setting)}
    return Plan(phases)


def _host_plan(shape: Shape, setting: Setting, base: dict[str, int], kept: dict[str, int]) -> Plan:
    """The phases of a native engine on a CPU, with the memory of the process itself."""
    process = {"libraries": setting.process}
    recomputed = min(recomputed_layers(shape, setting), shape.layers)
    if setting.decodes:  # the decode engine keeps them from the start, where the memory allows
        kept = {**kept, "evaluation weights": cached_bytes(shape, replace(setting, cached=shape.layers))}
    phases = {
        "load": {**process, **base, "files": host.stored_bytes(shape, setting)},
        "fit": {**process, **kept, "activations": host.native_activations(shape, setting, recomputed)},
        "validate": {**process, **kept, "activations": native.scoring_bytes(shape, setting)},
    }
    if setting.rows:
        phases["generate"] = {**process, **kept, **_generation_parts(shape, setting)}
    return Plan(phases)


def _generation_parts(shape: Shape, setting: Setting) -> dict[str, int]:
    token = 2 * shape.layers * shape.kv_heads * shape.head_dim * setting.width
    tokens = setting.prompt_tokens + setting.rows * setting.new_tokens
    if setting.decodes:
        return decoding_parts(
            Generation(
                rows=setting.rows,
                cache=setting.cache_tokens,
                prefill=max(setting.score_tokens, setting.prompt_tokens // setting.rows),
                token=token,
                forward=native.forward_bytes(shape, setting),
                logits=shape.vocabulary * (setting.width + 4),
                on_gpu=setting.device == "cuda",
            )
        )
    prefill = setting.prompt_tokens * native.forward_bytes(shape, setting)
    scores = setting.rows * native.forward_scores(shape, setting, setting.prompt_tokens // setting.rows)
    return {
        "activations": max(prefill, scores),
        "keys and values": 2 * token * tokens,  # growing copies the cache: twice
        "logits": setting.rows * shape.vocabulary * (setting.width + 4),
    }


def recomputed_layers(shape: Shape, setting: Setting) -> int:
    """The number of layers that activation checkpointing recomputes."""
    value = setting.checkpointing
    return value if isinstance(value, int) else 0 if value == "none" else shape.layers


def linear_bytes(out: int, into: int, setting: Setting) -> int:
    """A quantized weight: bitsandbytes' packed values, scales (maybe nested) and codes; or those of 4-bit integers."""
    count = out * into
    if setting.quantization == "none":
        return count * setting.width
    if setting.quantization == "int8":
        return count + 4 * out
    if setting.quantization in INT4:  # scales in 16 bits, zero points in 8
        groups = 1 if setting.group_size == -1 else ceil(into / setting.group_size)
        return ceil(count / 2) + 3 * out * groups + 4 * into * (setting.act_order and groups > 1)
    blocks = ceil(count / _BLOCK)
    code = 16 * 4
    if not setting.double_quantization:
        return ceil(count / 2) + 4 * blocks + code
    nested = 4 * ceil(blocks / _NESTED_BLOCK) + 256 * 4 + 4  # scales of scales, code and offset
    return ceil(count / 2) + blocks + nested + code


def optimizer_bytes(shape: Shape, setting: Setting) -> int:
    """Adam's two moments: 8 bits and a scale per 256 values, or 32 bits."""
    total = 0
    for name in setting.targets or SEVEN_PROJECTIONS:
        for size in (setting.r * side for side in shape.linears.get(name, ())):
            if "8bit" in setting.optimizer and size >= _LEAST_8BIT:
                total += 2 * (size + 4 * ceil(size / _STATE_BLOCK))
            else:
                total += 2 * 4 * size
    return shape.layers * total


def cast_bytes(shape: Shape, setting: Setting) -> int:
    """The fused engine's casts of each weight group's A (stacked) and B (block-diagonal)."""
    total = 0
    for group in WEIGHT_GROUPS:
        names = [name for name in group if name in (setting.targets or SEVEN_PROJECTIONS)]
        rank = setting.r * len(names)
        outputs = sum(shape.linears[name][0] for name in group)
        total += rank * (shape.linears[group[0]][1] + outputs)
    return shape.layers * total * setting.width


def cached_bytes(shape: Shape, setting: Setting) -> int:
    """Cached dequantized weights, each group with B beside it and A below it."""
    total = 0
    for group in WEIGHT_GROUPS:
        rank = _up(
            setting.r * sum(name in (setting.targets or SEVEN_PROJECTIONS) for name in group), RANK_MULTIPLE
        )
        outputs, inputs = sum(shape.linears[name][0] for name in group), shape.linears[group[0]][1]
        total += (outputs + rank) * _up(inputs + rank, ROW_MULTIPLE)
    return min(setting.cached, shape.layers) * total * setting.width


def workspace_bytes(shape: Shape, setting: Setting) -> int:
    """The largest weight group, dequantized; of transformers' layers the largest weight."""
    if setting.quantization == "none" or (setting.engine == "fused" and setting.cached >= shape.layers):
        return 0
    groups = WEIGHT_GROUPS if setting.attention == "unsloth" else [(name,) for name in SEVEN_PROJECTIONS]
    return setting.width * max(sum(_size(shape, name) for name in group) for group in groups)


def layer_bytes(shape: Shape, setting: Setting) -> int:
    """The fused engine's saved tensors of a layer per token: its input, q, k, v, the attention's output and
    logsumexp, the residual, gate and up, and the inputs times LoRA's A."""
    attention = (2 * shape.heads + 2 * shape.kv_heads) * shape.head_dim
    if shape.qk_norm:
        attention += (shape.heads + shape.kv_heads) * shape.head_dim  # q and k before their norms
    ranks = [
        setting.r * sum(name in (setting.targets or SEVEN_PROJECTIONS) for name in group)
        for group in WEIGHT_GROUPS
    ]
    inner = sum(_up(rank, RANK_MULTIPLE) for rank in ranks)
    # gate and up have a tail for LoRA (`tailed`)
    wide = _up(2 * shape.intermediate + ranks[2], ROW_MULTIPLE)
    return (2 * shape.hidden + attention + wide + inner) * setting.width + 4 * shape.heads


def activation_bytes(shape: Shape, setting: Setting) -> int:
    """Activations of the largest micro-batch of the fused engine or of Unsloth, when its backward starts."""
    layer, token = layer_bytes(shape, setting), shape.hidden * setting.width
    recomputed = recomputed_layers(shape, setting)
    saved_input = 0 if setting.checkpointing == "offload" else token
    if setting.engine == "native":
        layer = round(layer * _UNSLOTH_FACTOR)
        recomputed = min(recomputed, shape.layers)
        transient = round(layer * _UNSLOTH_TRANSIENT) if recomputed else 0
        return setting.tokens * ((shape.layers - recomputed) * layer + recomputed * saved_input + transient)
    recomputed = min(recomputed, shape.layers - 1)
    # after its keys and values, the last layer runs only at the rows that carry loss
    last = token + 2 * shape.kv_heads * shape.head_dim * setting.width
    transient = setting.width * (shape.intermediate + 3 * shape.hidden) + (layer if recomputed else 0)
    kept = (shape.layers - 1 - recomputed) * layer + recomputed * saved_input + last + transient
    # layers with cached weights keep the outputs of their norms too
    normed = max(0, min(setting.cached, shape.layers - recomputed) - 1)
    kept += normed * 2 * _up(shape.hidden, ROW_MULTIPLE) * setting.width
    return setting.tokens * kept + setting.loss_rows * layer


def _embedding_on_device(shape: Shape, setting: Setting) -> bool:
    """Whether the embedding is on the device; a tied weight leaves it only with embedding and head."""
    return setting.embedding == "device" or (shape.tied and setting.head == "device")


def _up(count: int, multiple: int) -> int:
    return ceil(count / multiple) * multiple


def _size(shape: Shape, name: str) -> int:
    out, into = shape.linears[name]
    return out * into


def _logits_bytes(shape: Shape, setting: Setting) -> int:
    """The head's transient bytes: logits of a piece of rows, or on the host of a piece of the vocabulary."""
    if setting.head == "host":
        # the streamed piece; at every row its logits in two types, and three hidden-sized sums
        logits = PIECE_VALUES // shape.hidden * (setting.width + 4)
        return PIECE_VALUES * setting.width + setting.loss_rows * (logits + shape.hidden * 12)
    rows = min(setting.loss_rows, max(1, PIECE_LOGITS // shape.vocabulary))
    return rows * shape.vocabulary * setting.width + setting.loss_rows * shape.hidden * 6
