"""The model as the training step and the scorer see it: micro-batch in, hidden rows out, the head on those rows."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from medqlora.data.packing import MicroBatch

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
        base: Any = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.model = model
        self.body = getattr(base, base.base_model_prefix)
        self.head = base.get_output_embeddings()
        self.packed_lengths = packed_lengths
        #: whether any [1, 1, T, T] mask is obeyed, as a prompt that several labels share needs it
        self.takes_any_mask = not packed_lengths and base.config._attn_implementation == "sdpa"
        config = base.config.get_text_config()
        self.softcap: float | None = getattr(config, "final_logit_softcapping", None)  # Gemma 2
        # Cohere multiplies its logits, Granite divides them
        self.logit_scale = getattr(config, "logit_scale", None) or 1 / (
            getattr(config, "logits_scaling", None) or 1
        )

    def hidden(self, batch: MicroBatch, rows: Tensor) -> Tensor:
        """[len(rows), D]: the last hidden states (after the final norm) at `rows` of the batch's tokens."""
        extra: dict[str, Any] = {}
        if self.packed_lengths and batch.attention_mask is None:
            extra["packed_seq_lengths"] = batch.lengths
        output = self.body(
            input_ids=batch.input_ids,
            position_ids=batch.position_ids,
            attention_mask=batch.attention_mask,
            use_cache=False,
            **extra,
        )
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
