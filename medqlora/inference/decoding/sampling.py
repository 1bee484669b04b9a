"""The next token of each row from its logits."""

from collections.abc import Sequence

import torch
from torch import Tensor

from medqlora.inference.decoding.requests import Sampling


class Chooser:
    """Chooses the tokens of one request, one after another.

    Args:
        sampling: None for greedy.
    """

    def __init__(self, sampling: Sampling | None) -> None:
        self.sampling = sampling
        self._generator = None if sampling is None else torch.Generator().manual_seed(sampling.seed)

    def draw(self) -> float:
        """The next random number, 0 to 1; 0 for greedy."""
        if self._generator is None:
            return 0.0
        return float(torch.rand((), generator=self._generator, dtype=torch.float64))


def choose(logits: Tensor, choosers: Sequence[Chooser]) -> Tensor:
    """The next token of each row, [R] int64 on the device of the logits; the host does not wait for it.

    Args:
        logits: [R, V].
        choosers: of the R rows.
    """
    tokens = logits.argmax(-1)
    sampled = [index for index, chooser in enumerate(choosers) if chooser.sampling is not None]
    if sampled:
        rows = _sent(torch.tensor(sampled), logits.device)
        tokens[rows] = _sample(logits[rows].float(), [choosers[index] for index in sampled])
    return tokens


def _sample(logits: Tensor, choosers: Sequence[Chooser]) -> Tensor:
    """By inverting the cumulative distribution of the likeliest tokens: one random number a row."""
    settings = [chooser.sampling for chooser in choosers if chooser.sampling is not None]
    columns = [[each.temperature for each in settings], [each.top_p for each in settings]]
    columns.append([chooser.draw() for chooser in choosers])
    temperature, top_p, drawn = _sent(torch.tensor(columns, dtype=torch.float64), logits.device)[..., None]
    # in float64: 128,256 probabilities are summed, and the sum decides
    probabilities, order = torch.softmax(logits.double() / temperature, -1).sort(
        dim=-1, descending=True, stable=True
    )
    sums = probabilities.cumsum(-1)
    # a token counts where the likelier ones have less than top_p; the likeliest always does
    kept = (sums - probabilities) < top_p
    kept[:, 0] = True
    total = (probabilities * kept).sum(-1, keepdim=True)
    place = (sums <= drawn * total).sum(-1, keepdim=True)
    last = kept.sum(-1, keepdim=True) - 1
    return order.gather(1, torch.minimum(place, last))[:, 0]


def _sent(values: Tensor, device: torch.device) -> Tensor:
    """Values of the host on the device, without a wait for what the device does."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values
