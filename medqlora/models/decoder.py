"""The model as the training step and the scorer see it: micro-batch in, hidden rows out, the head on those rows."""

from functools import cached_property
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from medqlora.data.batching.packing import MicroBatch, micro_batch, share_prompts
from medqlora.models.layers import base_model, carries_state, text_decoder
from medqlora.records import Encoded

#: largest difference of hidden states, over their norm, that rounding explains
_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 1.5e-1, torch.float16: 2e-2}
#: rows whose logits exist at one time: 256 rows of Llama-3's vocabulary are 131 MB in fp32
HEAD_ROWS = 256


class Decoder:
    """Runs a causal language model's own layers, but its head only where a result is needed.

    No logits of a whole sequence ever exist: the head sees the rows that carry loss or a label.

    Args:
        model: a transformers causal language model, or a PEFT model around one.
        packed_lengths: also pass each example's length, as Unsloth's own attention wants it; transformers'
            models read the restarting positions instead.
    """

    def __init__(self, model: Any, *, packed_lengths: bool = False) -> None:
        base = base_model(model)
        self.model = model
        self.body = text_decoder(base)
        self.head = base.get_output_embeddings()
        self.packed_lengths = packed_lengths
        self.config = base.config.get_text_config()
        self.softcap = _number(
            self.config, "final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap"
        )
        # Cohere and Falcon-H1 multiply their logits, Granite divides them
        self.logit_scale = _number(self.config, "logit_scale", "lm_head_multiplier") or 1 / (
            _number(self.config, "logits_scaling") or 1
        )
        accepted = signature(self.body.forward).parameters
        named = "input_ids" in accepted  # else a wrapper, that hands on what it is given
        #: whether it is told where an example's positions begin; else they can't restart within a row
        self.takes_positions = not named or "position_ids" in accepted
        #: why a row can't hold several examples, nor begin with padding: a state that runs along it; None for none
        self.state = carries_state(base)
        self._takes_mask = not named or "attention_mask" in accepted

    @cached_property
    def takes_any_mask(self) -> bool:
        """Whether any [1, 1, T, T] mask is obeyed, as a prompt that several labels share needs it.

        Shown on the model: one that carries a state along the row runs from one label into the next.
        """
        if self.packed_lengths or self.config._attn_implementation != "sdpa" or not self.takes_positions:
            return False
        return self.state is None and self._shares_prompts()

    @torch.no_grad()
    def _shares_prompts(self) -> bool:
        """Whether two completions side by side behind one prompt come out as each does alone."""
        device = next(
            (p.device for p in self.body.parameters() if p.device.type != "cpu"), self.head.weight.device
        )
        tokens = [1 + place % (self.head.weight.shape[0] - 1) for place in range(11)]
        examples = [
            Encoded(
                id=str(number),
                prompt=tuple(tokens[:5]),
                completion=tuple(tokens[start : start + 3]),
                labels=(),
            )
            for number, start in enumerate((5, 8))
        ]
        training = self.model.training
        self.model.eval()
        try:
            batch = share_prompts([examples]).to(device)
            together = self.hidden(batch, batch.rows).float()
            single = [micro_batch([one], packed=False, pad_token_id=0).to(device) for one in examples]
            alone = torch.cat([self.hidden(batch, batch.rows) for batch in single]).float()
        finally:
            self.model.train(training)
        error = ((together - alone).norm(dim=-1) / alone.norm(dim=-1)).max().item()
        return error <= _TOLERANCE.get(self.head.weight.dtype, 5e-2)  # not a number is no agreement

    def hidden(self, batch: MicroBatch, rows: Tensor) -> Tensor:
        """[len(rows), D]: the last hidden states (after the final norm) at `rows` of the batch's tokens."""
        extra: dict[str, Any] = {}
        if self.packed_lengths and batch.attention_mask is None:
            extra["packed_seq_lengths"] = batch.lengths
        if self.takes_positions:
            extra["position_ids"] = batch.position_ids
        if self._takes_mask:
            extra["attention_mask"] = batch.attention_mask
        output = self.body(input_ids=batch.input_ids, use_cache=False, **extra)
        return output.last_hidden_state.flatten(0, 1)[rows]

    def logits(self, hidden: Tensor) -> Tensor:
        """[R, V] float32 logits of hidden rows [R, D]."""
        logits = self.head(hidden.to(self.head.weight.dtype)).float() * self.logit_scale
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)

    def loss_sum(self, batch: MicroBatch) -> Tensor:
        """The sum of the completion tokens' negative log-likelihoods in nats, a float32 scalar with a graph.

        The head runs in pieces whose logits are computed again in the backward, so that they never exist
        all at once.
        """
        hidden = self.hidden(batch, batch.rows)
        total = hidden.new_zeros((), dtype=torch.float32)
        for rows, targets in zip(hidden.split(HEAD_ROWS), batch.targets.split(HEAD_ROWS), strict=True):
            total = total + checkpoint(self._loss_piece, rows, targets, use_reentrant=False)
        return total

    def _loss_piece(self, rows: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(self.logits(rows), targets, reduction="sum")


def _number(config: Any, *names: str) -> float | None:
    """The first of a configuration's fields that it has, None for none."""
    return next((value for name in names if (value := getattr(config, name, None)) is not None), None)
