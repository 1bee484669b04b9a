"""Whether a model is evaluated by the fused engine, and how much memory that may take."""

import torch
from torch import nn

from medqlora.config.model import Decoding
from medqlora.fused import FusedDecoder, unsupported
from medqlora.fused.decoding.graphs import WORKSPACE_BYTES
from medqlora.fused.modules import is_adapted, linear_module, read_model
from medqlora.inference.decoding.engine import DecodeEngine
from medqlora.inference.decoding.evaluation import CacheLimits
from medqlora.inference.decoding.layout import CACHE_SHARE, MOST_ROWS, given_tokens
from medqlora.inference.decoding.self_test import why_not
from medqlora.models.decoder import HEAD_ROWS
from medqlora.models.lora import SEVEN_PROJECTIONS
from medqlora.utils.console import say
from medqlora.utils.free_memory import free_host_bytes

#: share of the free memory that dequantized weights take, before the cache
_WEIGHTS_SHARE = 0.6
#: on a CPU, whose memory other programs need
_HOST_SHARE = 0.25
#: oldest GPUs that the fused engine was tested on
CAPABILITY = (8, 0)


def fused_for_evaluation(
    model: nn.Module, device: torch.device, longest: int = 0, *, own_adapter: bool = True
) -> FusedDecoder | None:
    """The fused engine for a model that is not trained, where it is known to give the model's own results.

    On a GPU that is half precision on Ampere and newer, on a CPU float32.

    Args:
        model: loaded.
        device: the model's.
        longest: tokens of the longest example, prompt and completion.
        own_adapter: as of `FusedDecoder`.
    """
    try:
        if unsupported(model, longest) is not None:
            return None
    except (AttributeError, ImportError):  # no Llama-like model, or bitsandbytes is missing
        return None
    half = dtype_of(model) != torch.float32
    if device.type == "cuda":
        if not half or torch.cuda.get_device_capability(device) < CAPABILITY:
            return None
    elif device.type != "cpu" or half:
        return None
    return FusedDecoder(
        model,
        checkpointing="none",
        compile=device.type == "cuda",
        cached=cacheable_layers(model, device),
        own_adapter=own_adapter,
    )


def takes_engine(decoding: Decoding) -> bool:
    """Whether the decode engine generates, where the fused engine runs the model."""
    return decoding != "transformers"


def decode_engine(model: nn.Module, device: torch.device, decoding: Decoding = "auto") -> DecodeEngine | None:
    """An engine that scores and generates with a loaded model; None where transformers does."""
    fused = fused_for_evaluation(model, device) if takes_engine(decoding) else None
    return None if fused is None else tested_engine(fused)


def engine_by_name(
    model: nn.Module, device: torch.device, decoding: Decoding = "auto"
) -> DecodeEngine | None:
    """`decode_engine` for a model whose adapters come and go: all are run alike, whichever was loaded first."""
    fused = fused_for_evaluation(model, device, own_adapter=False) if takes_engine(decoding) else None
    return None if fused is None else tested_engine(fused)


def tested_engine(decoder: FusedDecoder) -> DecodeEngine | None:
    """An engine; None, and a line says why, where it fails its self-test on this GPU."""
    engine = DecodeEngine(decoder)
    reason = why_not(engine) if engine.device.type == "cuda" else None
    if reason is None:
        return engine
    say(f"Generation: with transformers, the decode engine fails here ({reason})")
    return None


def dtype_of(model: nn.Module) -> torch.dtype:
    """The type of the weights that are not quantized."""
    return read_model(model).body.embed_tokens.weight.dtype


def cacheable_layers(model: nn.Module, device: torch.device, memory: int | None = None) -> int:
    """Layers whose weights may stay dequantized in the free memory; `memory` as of `cache_limits`."""
    layers = read_model(model).body.layers
    modules = (linear_module(next(iter(layers)), name) for name in SEVEN_PROJECTIONS)
    linears = [module.base_layer if is_adapted(module) else module for module in modules]
    # with some columns for LoRA
    layer = (
        sum(linear.out_features * (linear.in_features + 128) for linear in linears) * dtype_of(model).itemsize
    )
    share = _HOST_SHARE if device.type == "cpu" else _WEIGHTS_SHARE
    free = _free_bytes(device)
    if memory is not None and device.type == "cuda":
        free = min(free, memory - torch.cuda.memory_allocated(device))
    return min(len(layers), max(0, int(share * free / layer)))


def cache_limits(
    engine: DecodeEngine,
    max_new_tokens: int,
    *,
    rows: int | None,
    micro_batch_tokens: int,
    memory: int | None = None,
) -> CacheLimits:
    """The cache's size.

    Args:
        engine: whose cache it is.
        max_new_tokens: of a text.
        rows: most texts at once; None fills the free memory.
        micro_batch_tokens: most tokens of a prefill; with a number of rows, the cache grows with it.
        memory: bytes that torch may allocate on a GPU, the model's included; None for what is free.
    """
    device = engine.device
    given = None if rows is None else given_tokens(rows, micro_batch_tokens, max_new_tokens)
    if given is not None and (memory is None or device.type != "cuda"):
        return CacheLimits(rows or 1, given, micro_batch_tokens)
    # the present cache is given back for the new one
    held = engine.cache_bytes - _pass_bytes(engine.decoder, micro_batch_tokens)
    room = int((_HOST_SHARE if device.type == "cpu" else CACHE_SHARE) * (_free_bytes(device) + held))
    if memory is not None and device.type == "cuda":
        room = min(room, memory - torch.cuda.memory_allocated(device) + held)
    tokens = max(0, room) // engine.token_bytes
    if given is not None:
        tokens = min(tokens, given)
    return CacheLimits(MOST_ROWS if rows is None else rows, tokens, micro_batch_tokens)


def _pass_bytes(decoder: FusedDecoder, tokens: int) -> int:
    """The transient bytes of a prefill: activations, a dequantized weight group, logits in two types, workspaces."""
    down = decoder.layers[0].second.down
    activations = tokens * (3 * down.inputs + 4 * down.outputs) * decoder.dtype.itemsize
    weights = max(group.outputs * group.inputs for group in decoder.groups) * decoder.dtype.itemsize
    logits = HEAD_ROWS * decoder.head.out_features * (decoder.dtype.itemsize + 8)
    workspaces = WORKSPACE_BYTES if decoder.norm[0].is_cuda else 0
    return max(activations + weights, logits) + workspaces


def _free_bytes(device: torch.device) -> int:
    if device.type != "cuda":
        return free_host_bytes()
    free, _ = torch.cuda.mem_get_info(device)
    # what the allocator holds and doesn't use is free too
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(free + unused)
