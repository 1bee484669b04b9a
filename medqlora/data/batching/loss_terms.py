"""The weights of a step's loss: one term per completion token, or several where its label is smoothed.

The loss of a step is Σ w·(−log p(target)) / Σ w over all completion tokens of the step, over its micro-batches and
processes. A token's terms have the weight of its example, w = `Encoded.weight`, in sum. Without weights each w is 1,
and the divisor is the number of completion tokens.

Label smoothing (Szegedy et al., 2016, https://arxiv.org/abs/1512.00567) concerns the label's token alone, and spreads
over the K labels of the question, not over the vocabulary: with ε = `Encoded.smoothing` the target is the right label
with 1 − ε + ε/K and each other label with ε/K. The divisor stays the same.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from medqlora.records import Encoded


class LossTerms(NamedTuple):
    """The terms of a micro-batch's loss. Both engines read them in `loss_sum`.

    Attributes:
        places: [E] int64: index in the micro-batch's `rows` of the hidden state; a row may have several terms.
        targets: [E] int64: the token whose log-likelihood it is.
        weights: [E] float32.
    """

    places: Tensor
    targets: Tensor
    weights: Tensor

    def to(self, device: torch.device) -> "LossTerms":
        return LossTerms(*(tensor.to(device, non_blocking=True) for tensor in self))


def loss_terms(examples: Sequence[Encoded]) -> LossTerms | None:
    """The terms of `examples`, in the order of a micro-batch's rows; None where every token has one of weight 1."""
    if all(example.weight == 1 and not example.smoothing for example in examples):
        return None
    places: list[int] = []
    targets: list[int] = []
    weights: list[float] = []
    row = 0
    for example in examples:
        smoothed = _smoothed(example)
        for index, token in enumerate(example.completion):
            parts = smoothed[1] if smoothed is not None and index == smoothed[0] else {token: 1.0}
            for target, share in parts.items():
                places.append(row)
                targets.append(target)
                weights.append(share * example.weight)
            row += 1
    return LossTerms(
        torch.tensor(places, dtype=torch.long),
        torch.tensor(targets, dtype=torch.long),
        torch.tensor(weights, dtype=torch.float32),
    )


def loss_weight(examples: Sequence[Encoded]) -> float | None:
    """The divisor of the loss over `examples`: Σ w over their completion tokens; None where every weight is 1."""
    if all(example.weight == 1 for example in examples):
        return None
    return float(sum(example.weight * len(example.completion) for example in examples))


def _smoothed(example: Encoded) -> tuple[int, dict[int, float]] | None:
    """Index in the completion of the token that tells the labels apart, and token → share of the target there."""
    if not example.smoothing or len(example.labels) < 2:
        return None
    shared = 0
    while len({label[shared] for label in example.labels}) == 1:  # no label is the beginning of another
        shared += 1
    index = example.label_at + shared
    if index >= len(example.completion):
        return None
    parts = {int(example.completion[index]): 1 - example.smoothing}
    for label in example.labels:
        token = int(label[shared])
        parts[token] = parts.get(token, 0.0) + example.smoothing / len(example.labels)
    return index, parts
