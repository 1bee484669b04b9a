"""Bytes of a generation with the decode engine (`inference.decoding`)."""

from typing import NamedTuple

from medqlora.fused.decoding.cache import BLOCK, RESERVED
from medqlora.fused.decoding.graphs import WORKSPACE_BYTES


class Generation(NamedTuple):
    """What decides the memory of a generation.

    Attributes:
        rows: most texts at once.
        cache: tokens of the cache.
        prefill: tokens of the largest pass over prompts.
        token: bytes of a token's keys and values, over all layers.
        forward: bytes of a token in a pass without gradients.
        logits: bytes of a row's logits.
        on_gpu: whether passes are CUDA graphs.
    """

    rows: int
    cache: int
    prefill: int
    token: int
    forward: int
    logits: int
    on_gpu: bool = True


def decoding_parts(generation: Generation) -> dict[str, int]:
    """Part → bytes. The cache is allocated once, before the first pass over prompts."""
    activations = generation.prefill * generation.forward
    return {
        "activations": activations,
        "keys and values": (generation.cache + RESERVED * BLOCK) * generation.token,
        # of decoding, which has no activations of a prefill beside it
        "logits": max(0, generation.rows * generation.logits - activations),
        **({"CUDA graphs' workspaces": WORKSPACE_BYTES} if generation.on_gpu else {}),
    }
