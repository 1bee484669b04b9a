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


def choose(logits: Tensor, choosers: Sequence[Chooser]) -> list[int]:
    """The next token of each row.

    Args:
        logits: [R, V].
        choosers: of the R rows.
    """
    tokens: list[int] = logits.argmax(-1).tolist()
    sampled = [index for index, chooser in enumerate(choosers) if chooser.sampling is not None]
    if sampled:
        rows = torch.tensor(sampled, device=logits.device)
        drawn = _sample(logits[rows].float(), [choosers[index] for index in sampled])
        for index, token in zip(sampled, drawn, strict=True):
            tokens[index] = token
    return tokens


def _sample(logits: Tensor, choosers: Sequence[Chooser]) -> list[int]:
    """By inverting the cumulative distribution of the likeliest tokens: one random number a row."""

    def column(values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64, device=logits.device)[:, None]

    settings = [chooser.sampling for chooser in choosers if chooser.sampling is not None]
    # in float64: 128,256 probabilities are summed, and the sum decides
    scaled = logits.double() / column([each.temperature for each in settings])
    probabilities, order = torch.softmax(scaled, -1).sort(dim=-1, descending=True, stable=True)
    sums = probabilities.cumsum(-1)
    # a token counts where the likelier ones have less than top_p; the likeliest always does
    kept = (sums - probabilities) < column([each.top_p for each in settings])
    kept[:, 0] = True
    total = (probabilities * kept).sum(-1, keepdim=True)
    threshold = column([chooser.draw() for chooser in choosers]) * total
    place = (sums <= threshold).sum(-1, keepdim=True)
    last = kept.sum(-1, keepdim=True) - 1
    return order.gather(1, torch.minimum(place, last))[:, 0].tolist()
