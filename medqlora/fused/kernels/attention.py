"""Causal attention within each example of a packed row."""

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from medqlora.compat.torch import flash_attention_backward, flash_attention_forward
from medqlora.fused.kernels.available import has_triton

#: tokens of the longest example up to which the own kernels run
SHORT = 1024
#: bytes of shared memory that a block of threads of these kernels may need: A100, H100 and newer ones of their kind
_SHARED = 160 * 1024


class Segments(NamedTuple):
    """Bounds of n examples in a packed row.

    Attributes:
        lengths: keys of each example, on the host.
        longest: the maximum of `lengths`.
        keys: [n + 1] int32: cumulative key counts, from 0.
        queries: [n + 1] int32: cumulative query counts. An example's queries are the last of its tokens.
    """

    lengths: list[int]
    longest: int
    keys: Tensor
    queries: Tensor


class Attended(NamedTuple):
    """The output of attention, with what its backward needs beside the inputs.

    Attributes:
        out: [Q, H, d].
        logsumexp, random_state: of flash attention, empty otherwise.
    """

    out: Tensor
    logsumexp: Tensor
    random_state: Tensor


class BeforeRotation(NamedTuple):
    """Where the gradients of q, k and v may be written, those of q and k before their rotation by `cos` and `sin`."""

    q: Tensor
    k: Tensor
    v: Tensor
    cos: Tensor
    sin: Tensor


def flash_runs(device: torch.device, dtype: torch.dtype, head_width: int) -> bool:
    """Whether torch's variable-length flash attention runs: half precision on an Ampere GPU or newer."""
    return (
        device.type == "cuda"
        and dtype in (torch.float16, torch.bfloat16)
        and head_width % 8 == 0
        and head_width <= 256
        and torch.version.hip is None
        and torch.cuda.get_device_capability(device) >= (8, 0)
    )


def _short(q: Tensor, k: Tensor, segments: Segments) -> bool:
    """Whether the kernels of `triton_attention` run: on a GPU for flash attention, examples of a few hundred tokens."""
    width = q.shape[-1]
    return (
        segments.longest <= SHORT
        and segments.queries is segments.keys
        and width in (64, 128)
        and q.shape[0] == k.shape[0]
        and _room(q.device)
    )


@lru_cache
def _room(device: torch.device) -> bool:
    """Whether Triton is installed, and a GPU has the shared memory that the own kernels take."""
    found = torch.cuda.get_device_properties(device)
    return has_triton() and getattr(found, "shared_memory_per_block_optin", 0) >= _SHARED


def attend(
    q: Tensor, k: Tensor, v: Tensor, segments: Segments, window: int | None = None, out: Tensor | None = None
) -> Attended:
    """softmax(q kᵀ / √d) v within each example: q [Q, H, d], k and v [T, H_kv, d], T the sum of lengths.

    Args:
        window: keys that a query sees at most, its own included.
        out: [Q, H, d], where the result may be written.
    """
    if window is not None and segments.longest <= window:
        window = None
    if not flash_runs(q.device, q.dtype, q.shape[-1]):
        empty = q.new_empty(0)
        return Attended(_blocks(q, k, v, segments, window), empty, empty)
    if window is None and _short(q, k, segments):
        from medqlora.fused.kernels import triton_attention

        out = torch.empty_like(q) if out is None else out
        sums = triton_attention.attend(q, k, v, segments.keys, segments.longest, out)
        return Attended(out, sums, sums.new_empty(0))
    # Dao, 2023, https://arxiv.org/abs/2307.08691; the causal mask aligns each example's last query and key
    limits = {} if window is None else {"window_size_left": window - 1, "window_size_right": 0}
    out, logsumexp, random_state, _, _ = flash_attention_forward(
        q,
        k,
        v,
        segments.queries,
        segments.keys,
        segments.longest,
        segments.longest,
        0.0,
        True,
        False,
        **limits,
    )
    return Attended(out, logsumexp, random_state)


def attend_backward(
    gradient: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attended: Attended,
    segments: Segments,
    before: BeforeRotation | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of q, k and v from the gradient of `attend`'s output [Q, H, d].

    Where the kernels can, they are `before`'s tensors, those of q and k before the rotation.
    """
    if not flash_runs(q.device, q.dtype, q.shape[-1]):
        with torch.enable_grad():  # recomputes with a graph: speed doesn't matter on this path
            inputs = [tensor.detach().requires_grad_() for tensor in (q, k, v)]
            out = _blocks(inputs[0], inputs[1], inputs[2], segments)
            d_q, d_k, d_v = torch.autograd.grad(out, inputs, gradient)
        return d_q, d_k, d_v
    if _short(q, k, segments):
        from medqlora.fused.kernels import triton_attention

        turns = None
        if before is None:
            d_q, d_k, d_v = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        else:
            d_q, d_k, d_v, turns = before.q, before.k, before.v, (before.cos, before.sin)
        own = (q, k, v, attended.out, attended.logsumexp, segments.keys, segments.longest)
        triton_attention.attend_backward(gradient, *own, d_q, d_k, d_v, turns)
        return d_q, d_k, d_v
    unused = attended.random_state.new_empty(0)
    return flash_attention_backward(
        gradient,
        q,
        k,
        v,
        attended.out,
        attended.logsumexp,
        segments.queries,
        segments.keys,
        segments.longest,
        segments.longest,
        0.0,
        True,
        attended.random_state,
        unused,
    )


def attend_cached(q: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """The attention of one query a row: [B, H d] from q [B, H, d], keys and values [B, L, H_kv, d].

    The query heads of a key head stand as queries of one row, so that no key is repeated.

    Args:
        q: rotated.
        keys, values: of L cached tokens, the query's own included.
        mask: [B, 1, 1, L]: the tokens that each row sees.
    """
    shared = q.view(q.shape[0], keys.shape[2], -1, q.shape[2])
    out = F.scaled_dot_product_attention(shared, keys.transpose(1, 2), values.transpose(1, 2), attn_mask=mask)
    return out.reshape(q.shape[0], -1)


def _blocks(q: Tensor, k: Tensor, v: Tensor, segments: Segments, window: int | None = None) -> Tensor:
    """SDPA per example: runs on every device, without a [T, T] mask."""
    counts = segments.lengths
    if q.shape[0] != k.shape[0]:  # on a CPU only: on other devices this path receives every query
        counts = segments.queries.diff().tolist()
    groups = q.shape[1] // k.shape[1]
    parts = []
    for queries, keys, values in zip(
        q.split(counts), k.split(segments.lengths), v.split(segments.lengths), strict=True
    ):
        rows, columns = len(queries), len(keys)
        mask = None
        if rows != columns or (window is not None and columns > window):
            mask = torch.ones(rows, columns, dtype=torch.bool, device=q.device).tril(columns - rows)
            if window is not None:
                mask = mask.triu(columns - rows - window + 1)
        out = F.scaled_dot_product_attention(
            queries.transpose(0, 1)[None],
            keys.transpose(0, 1).repeat_interleave(groups, 0)[None],
            values.transpose(0, 1).repeat_interleave(groups, 0)[None],
            attn_mask=mask,
            is_causal=mask is None,
        )
        parts.append(out[0].transpose(0, 1))
    return torch.cat(parts) if parts else q
