"""Bytes of a generation with the decode engine (`inference.decoding`)."""

from math import ceil
from typing import NamedTuple

#: capacities of the cache on a GPU are multiples of it
_CAPACITY_MULTIPLE = 64


class Generation(NamedTuple):
    """What decides the memory of a generation.

    Attributes:
        rows: most texts at once.
        prompt: tokens of the longest prompt.
        new: most new tokens of a text.
        prefill: most tokens that go through the model at once.
        token: bytes of a token's keys and values, over all layers.
        forward: bytes of a token in a pass without gradients.
        logits: bytes of a row's logits.
    """

    rows: int
    prompt: int
    new: int
    prefill: int
    token: int
    forward: int
    logits: int


def decoding_parts(generation: Generation) -> dict[str, int]:
    """Part → bytes. The cache is allocated once, with room for the longest text in each row."""
    need = ceil((generation.prompt + generation.new) / _CAPACITY_MULTIPLE) * _CAPACITY_MULTIPLE
    tokens = 2 * generation.prefill + generation.rows * generation.new
    rows = max(1, min(generation.rows, tokens // need))
    return {
        "activations": max(generation.prefill, generation.prompt) * generation.forward,
        "keys and values": rows * need * generation.token,
        "logits": rows * generation.logits,
    }
