"""A text that is generated for a job: its settings, and what there is of it so far."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from medqlora.data.batching.packing import pack
from medqlora.inference.scoring import Decodes
from medqlora.records import Encoded, ImageSlot
from medqlora.serving.engine import TokenLogprob
from medqlora.utils.types import Tokenizer


@dataclass(eq=False)
class Row:
    """One text that is generated.

    Attributes:
        prompt: token ids.
        max_new_tokens: length limit.
        temperature: 0 for greedy.
        seed: of the sampling.
        stop: texts that end it.
        top_logprobs: as in `Job`.
        adapter: PEFT's name of its adapter.
        watched: whether each token is reported; else the end alone.
        images: where the images are in `prompt`.
        ends: token ids that end it.
        token_ids: what was generated so far, without the end token.
        text: its text, without the stop text.
        logprobs: of `token_ids`.
        finish: why it ended; None while it goes on.
    """

    prompt: Sequence[int]
    max_new_tokens: int
    temperature: float = 0.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    top_logprobs: int | None = None
    adapter: str = ""
    watched: bool = False
    images: tuple[ImageSlot, ...] = ()
    ends: tuple[int, ...] = ()
    token_ids: list[int] = field(default_factory=list)
    text: str = ""
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish: str | None = None

    @property
    def ended(self) -> bool:
        return self.finish is not None

    def add(self, token: int, tokenizer: Tokenizer) -> None:
        """Appends a token; the row may have ended by it."""
        self.token_ids.append(token)
        if self.stop and self._cut(tokenizer):
            self.finish = "stop"
        elif len(self.token_ids) >= self.max_new_tokens:
            self.finish = "length"

    def write(self, tokenizer: Tokenizer) -> None:
        """Brings `text` up to date; while it grows, without an end that may turn out to be a stop text's beginning."""
        if self.finish == "stop" and self.stop and self._cut(tokenizer):
            return
        text = tokenizer.decode(self.token_ids, skip_special_tokens=True)
        self.text = (text if self.ended else _certain(text, self.stop)).strip()

    @torch.no_grad()
    def score(self, decoder: Decodes, tokenizer: Tokenizer, device: torch.device) -> None:
        """Fills `logprobs` of a finished text by one pass over prompt and text, where the generation had none."""
        count = len(self.token_ids)
        if not count:
            return
        batch = pack([Encoded("", self.prompt, self.token_ids)]).to(device)
        places = torch.arange(count, device=device) + len(self.prompt) - 1
        steps = torch.log_softmax(decoder.logits(decoder.hidden(batch, places)).float(), dim=-1)
        self.logprobs = [
            token_logprob(each, token, self.top_logprobs or 0, tokenizer)
            for each, token in zip(steps, self.token_ids, strict=True)
        ]

    def _cut(self, tokenizer: Tokenizer) -> bool:
        """Cuts the text before its first stop text; False where it holds none."""
        text = tokenizer.decode(self.token_ids, skip_special_tokens=True)
        places = [place for stop in self.stop if (place := text.find(stop)) >= 0]
        if places:
            self.text = text[: min(places)].strip()
        return bool(places)


def _certain(text: str, stops: Sequence[str]) -> str:
    """A growing text without the longest end that some stop text begins with."""
    if not stops:
        return text
    text = text.rstrip("\ufffd")  # a letter of several tokens, the last ones yet to come
    begun = (count for stop in stops for count in range(len(stop) - 1, 0, -1) if text.endswith(stop[:count]))
    return text[: len(text) - max(begun, default=0)]


def token_logprob(logprobs: Tensor, token: int, count: int, tokenizer: Tokenizer) -> TokenLogprob:
    """A token with the `count` likeliest ones of its step.

    Args:
        logprobs: [V] of the step, in nats.
    """
    best = torch.topk(logprobs, count) if count else None
    top = () if best is None else tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True))
    return TokenLogprob(
        tokenizer.decode([token]),
        float(logprobs[token]),
        tuple((tokenizer.decode([other]), value) for other, value in top),
    )
