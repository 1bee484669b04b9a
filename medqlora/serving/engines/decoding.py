"""Batched generation for models that the decode engine doesn't run; each row has settings of its own.

A row reports its text as it grows, and can be cancelled. transformers' `generate` runs the model, with its cache, for
every family that it supports. A logits processor and a stopping criterion carry what it has no options for. Sampling
adds Gumbel noise to log p / temperature and takes the largest (https://arxiv.org/abs/1611.01144, section 2): rows with
other temperatures and seeds share one batch, and a row's text does not depend on the rows beside it.
"""

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from medqlora.inference.generation import ImageInputs
from medqlora.serving.engines.rows import Row, token_logprob
from medqlora.utils.types import Tokenizer

#: called with the rows whose text changed or ended at this step
Changed = Callable[[Sequence[Row]], None]


@torch.no_grad()
def decode(
    model: nn.Module,
    rows: Sequence[Row],
    *,
    tokenizer: Tokenizer,
    end_token_ids: Sequence[int],
    device: torch.device,
    changed: Changed,
    cancelled: Callable[[Row], bool],
    image_inputs: ImageInputs | None = None,
) -> None:
    """Generates all rows in one batch; each ends by an end token, its stop texts, its limit, or a cancellation.

    Args:
        model: has transformers' `generate`; in its generating state.
        rows: fewer or more; prompts are padded on the left.
        tokenizer: decodes the tokens.
        end_token_ids: each of them ends a text.
        device: the model's.
        changed: see `Changed`.
        cancelled: asked at every step; a cancelled row ends with `finish` "cancelled".
        image_inputs: makes the model's arguments of the rows' images; None for a base that reads text alone.
    """
    from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

    steps = _Steps(rows, tokenizer, frozenset(end_token_ids), changed, cancelled)
    longest = max(len(row.prompt) for row in rows)
    pad = tokenizer.pad_token_id or 0  # padding is masked, so any token will do
    input_ids = torch.full((len(rows), longest), pad)
    mask = torch.zeros(len(rows), longest, dtype=torch.long)
    for index, row in enumerate(rows):
        input_ids[index, longest - len(row.prompt) :] = torch.tensor(row.prompt)
        mask[index, longest - len(row.prompt) :] = 1
    settings = GenerationConfig(
        do_sample=False,
        max_new_tokens=max(row.max_new_tokens for row in rows),
        eos_token_id=list(end_token_ids),
        pad_token_id=pad,
        use_cache=True,
    )
    input_ids = input_ids.to(device)
    get_base_model = getattr(model, "get_base_model", None)  # a PEFT model has it
    base = model if get_base_model is None else get_base_model()
    # the base's own defaults, such as a repetition penalty, would make the text another than the greedy one
    own = cast("GenerationConfig", base.generation_config)
    base.generation_config = GenerationConfig()
    try:
        cast("Callable[..., Tensor]", model.generate)(
            input_ids=input_ids,
            attention_mask=mask.to(device),
            generation_config=settings,
            logits_processor=LogitsProcessorList([steps.before]),
            stopping_criteria=StoppingCriteriaList([steps.after]),
            **_further_inputs(rows, input_ids, image_inputs),
        )
    finally:
        base.generation_config = own


def _further_inputs(
    rows: Sequence[Row], input_ids: Tensor, image_inputs: ImageInputs | None
) -> dict[str, object]:
    """The model's arguments for rows of several adapters, and for rows with images."""
    names = [row.adapter for row in rows]
    further: dict[str, object] = {"adapter_names": names} if len(set(names)) > 1 else {}
    slots = [slot for row in rows for slot in row.images]
    return {**further, **image_inputs(slots, input_ids)} if slots and image_inputs is not None else further


class _Steps:
    """Follows one batch, token by token."""

    def __init__(
        self,
        rows: Sequence[Row],
        tokenizer: Tokenizer,
        end_token_ids: frozenset[int],
        changed: Changed,
        cancelled: Callable[[Row], bool],
    ) -> None:
        self.rows = rows
        self.tokenizer = tokenizer
        self.end_token_ids = end_token_ids
        self.changed = changed
        self.cancelled = cancelled
        self._logprobs: Tensor | None = None
        self._generators = [torch.Generator().manual_seed(row.seed) for row in rows]

    def before(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """[B, V] scores whose largest is the next token of each row."""
        live = [row for row in self.rows if not row.ended]
        needed = any(row.top_logprobs is not None for row in live)
        self._logprobs = torch.log_softmax(scores.float(), dim=-1) if needed else None
        sampled = [index for index, row in enumerate(self.rows) if row.temperature > 0 and not row.ended]
        if not sampled:
            return scores
        scores = scores.float().clone()
        for index in sampled:
            row = self.rows[index]
            # drawn on the host: the same seed gives the same text on every device
            uniform = torch.rand(scores.shape[1], generator=self._generators[index]).clamp_min(1e-20)
            noise = -torch.log(-torch.log(uniform))
            scores[index] = scores[index] / row.temperature + noise.to(scores.device)
        return scores

    def after(self, input_ids: Tensor, scores: object, **_: object) -> Tensor:
        """[B] booleans: which rows have ended."""
        tokens = input_ids[:, -1].tolist()
        news = []
        for index, (row, token) in enumerate(zip(self.rows, tokens, strict=True)):
            if row.ended:
                continue
            if self.cancelled(row):
                row.finish = "cancelled"
            elif token in self.end_token_ids:
                row.finish = "stop"
            else:
                self._add(index, row, int(token))
            if row.watched or row.ended:
                news.append(row)
        for row in news:
            if row.finish != "cancelled":
                row.write(self.tokenizer)
        if news:
            self.changed(news)
        return torch.tensor([row.ended for row in self.rows], device=input_ids.device)

    def _add(self, index: int, row: Row, token: int) -> None:
        if self._logprobs is not None and row.top_logprobs is not None:
            row.logprobs.append(token_logprob(self._logprobs[index], token, row.top_logprobs, self.tokenizer))
        row.add(token, self.tokenizer)
