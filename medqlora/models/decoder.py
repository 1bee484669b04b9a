"""The model for the training step and the scorer: micro-batch in, hidden rows out, the head on those rows alone."""

from functools import cached_property
from inspect import signature
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from medqlora.compat.transformers import attention_implementation
from medqlora.data.batching.packing import MicroBatch, micro_batch, share_prompts
from medqlora.models.embedding_noise import noisy
from medqlora.models.layers import base_model, carries_state, text_decoder
from medqlora.records import Encoded

if TYPE_CHECKING:
    from transformers import PretrainedConfig

#: largest relative difference of hidden states that rounding explains
_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 1.5e-1, torch.float16: 2e-2}
#: rows whose logits exist at a time: 256 rows of Llama-3's vocabulary are 131 MB in fp32
HEAD_ROWS = 256


class Decoder:
    """Runs a causal language model's own layers, and its head only on the rows that carry loss or a label.

    So the logits of a complete sequence never exist.

    Args:
        model: a transformers causal language model, or a PEFT model around one.
        packed_lengths: also pass each example's length, which Unsloth's attention needs; transformers' models read the
            restarting positions instead.
    """

    #: whether it takes rows with images
    reads_images = False

    def __init__(self, model: nn.Module, *, packed_lengths: bool = False) -> None:
        base = base_model(model)
        self.model = model
        self.embedding = base.get_input_embeddings()
        self.body = text_decoder(base)
        self.head: nn.Linear = base.get_output_embeddings()
        self.packed_lengths = packed_lengths
        self.config = base.config.get_text_config()
        self.softcap = _number(
            self.config, "final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap"
        )
        # Cohere and Falcon-H1 multiply their logits; Granite divides them
        self.logit_scale = _number(self.config, "logit_scale", "lm_head_multiplier") or 1 / (
            _number(self.config, "logits_scaling") or 1
        )
        accepted = signature(self.body.forward).parameters
        named = "input_ids" in accepted  # else a wrapper that passes its arguments on
        #: whether the layers take position ids; else positions can't restart within a row
        self.takes_positions = not named or "position_ids" in accepted
        #: why a row can't hold several examples, nor begin with padding: a state along the row; None for no reason
        self.state = carries_state(base)
        #: NEFTune's alpha while training; 0 for no noise on the embeddings
        self.noise_alpha = 0.0
        self._takes_mask = not named or "attention_mask" in accepted

    @cached_property
    def takes_any_mask(self) -> bool:
        """Whether any [1, 1, T, T] mask is obeyed, which a prompt shared by several labels needs.

        It is tested on the model: a state along the row would run from one label into the next.
        """
        if self.packed_lengths or attention_implementation(self.config) != "sdpa" or not self.takes_positions:
            return False
        return self.state is None and self._shares_prompts()

    @torch.no_grad()
    def _shares_prompts(self) -> bool:
        """Whether two completions side by side behind one prompt give the hidden states of each alone."""
        device = next(
            (p.device for p in self.body.parameters() if p.device.type != "cpu"), self.head.weight.device
        )
        tokens = [1 + index % (self.head.weight.shape[0] - 1) for index in range(11)]
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
            single = [micro_batch([example], packed=False, pad_token_id=0).to(device) for example in examples]
            alone = torch.cat([self.hidden(batch, batch.rows) for batch in single]).float()
        finally:
            self.model.train(training)
        error = ((together - alone).norm(dim=-1) / alone.norm(dim=-1)).max().item()
        return error <= _TOLERANCE.get(self.head.weight.dtype, 5e-2)  # NaN compares false

    def hidden(self, batch: MicroBatch, rows: Tensor) -> Tensor:
        """[len(rows), D]: the last hidden states (after the final norm) at `rows` of the batch's tokens."""
        extra: dict[str, object] = {}
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

        With `batch.terms`, Σ weight · (−log p(target)) over them. The head runs in pieces whose logits are recomputed
        in the backward, so they never exist all at once.
        """
        with noisy(self.embedding, batch.lengths, self.noise_alpha):
            hidden = self.hidden(batch, batch.rows)
        total = hidden.new_zeros((), dtype=torch.float32)
        if batch.terms is None:
            for rows, targets in zip(hidden.split(HEAD_ROWS), batch.targets.split(HEAD_ROWS), strict=True):
                total = total + checkpoint(self._loss_piece, rows, targets, use_reentrant=False)
            return total
        pieces = zip(*(part.split(HEAD_ROWS) for part in batch.terms), strict=True)
        for places, targets, weights in pieces:
            piece = checkpoint(self._weighted_piece, hidden[places], targets, weights, use_reentrant=False)
            total = total + piece
        return total

    def _loss_piece(self, rows: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(self.logits(rows), targets, reduction="sum")

    def _weighted_piece(self, rows: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        return F.cross_entropy(self.logits(rows), targets, reduction="none") @ weights


def _number(config: "PretrainedConfig", *names: str) -> float | None:
    """The first of these fields that the configuration has; None for none."""
    return next((value for name in names if (value := getattr(config, name, None)) is not None), None)
