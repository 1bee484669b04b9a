"""NEFTune: uniform noise on the embeddings in training."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def with_noise(embedded: Tensor, lengths: Tensor, alpha: float) -> Tensor:
    """Adds uniform noise of at most alpha / sqrt(L·D) to each value of an example of L tokens and D dimensions.

    Jain et al., 2023, https://arxiv.org/abs/2310.05914. Padding gets noise too, which nothing reads.

    Args:
        embedded: [1, T, D] or [T, D] packed, [n, L, D] padded.
        lengths: [n] on the host: tokens of each example.
        alpha: 5 to 15 in the paper.
    """
    scale = alpha / (lengths.to(torch.float32) * embedded.shape[-1]).sqrt()
    if embedded.dim() == 3 and len(lengths) == embedded.shape[0] and embedded.shape[0] > 1:
        widths = scale[:, None, None]
    else:
        widths = torch.repeat_interleave(scale, lengths.long())[:, None]
        if embedded.shape[-2] != len(widths):  # one padded row
            widths = scale[:, None, None]
    noise = torch.empty_like(embedded).uniform_(-1.0, 1.0)
    return embedded + noise * widths.to(device=embedded.device, dtype=embedded.dtype)


@contextmanager
def noisy(embedding: nn.Module, lengths: Tensor, alpha: float) -> Iterator[None]:
    """A block in which `embedding` returns its output `with_noise`; without alpha, or without gradients, unchanged."""
    if not alpha or not torch.is_grad_enabled() or not math.isfinite(alpha):
        yield
        return
    handle = embedding.register_forward_hook(lambda module, given, output: with_noise(output, lengths, alpha))
    try:
        yield
    finally:
        handle.remove()
