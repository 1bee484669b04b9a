"""From encoded questions to predictions: scores the labels, and lets the model write."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from medqlora.evaluation.decisions import parse_decision
from medqlora.evaluation.scoring import Decodes, score
from medqlora.records import Encoded, Prediction, Record

#: prompts in, token ids of the texts out, in the same order
Generate = Callable[[Sequence[Sequence[int]]], list[list[int]]]


class Evaluated(NamedTuple):
    """What a group of questions gave.

    Attributes:
        predictions: one a question, in order.
        completion_nll: the sum of the completions' negative log-likelihoods, in nats.
        completion_tokens: how many tokens those are.
    """

    predictions: list[Prediction]
    completion_nll: float
    completion_tokens: int


class Evaluator:
    """Asks one model. Validation, test and prediction all go through here.

    Args:
        decoder: for the log-likelihoods.
        generate: writes text; None scores labels alone.
        tokenizer: reads the text's tokens back.
        records: by id, of every question that will be asked.
        micro_batch_tokens, packed, pad_token_id, device: as in `medqlora.evaluation.scoring.score`.
    """

    def __init__(
        self,
        decoder: Decodes,
        generate: Generate | None,
        *,
        tokenizer: Any,
        records: Mapping[str, Record],
        micro_batch_tokens: int,
        packed: bool,
        pad_token_id: int,
        device: torch.device,
    ) -> None:
        self.decoder = decoder
        self.generate = generate
        self.tokenizer = tokenizer
        self.records = records
        self.micro_batch_tokens = micro_batch_tokens
        self.packed = packed
        self.pad_token_id = pad_token_id
        self.device = device

    def evaluate(self, examples: Sequence[Encoded]) -> Evaluated:
        """Scores, and where asked generates, for `examples` (one batch; best of similar length)."""
        scored = score(
            self.decoder,
            examples,
            micro_batch_tokens=self.micro_batch_tokens,
            packed=self.packed,
            pad_token_id=self.pad_token_id,
            device=self.device,
        )
        texts: list[str | None] = [None] * len(examples)
        if self.generate is not None:
            written = self.generate([example.prompt for example in examples])
            texts = [self.tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in written]
        predictions = []
        for example, result, text in zip(examples, scored, texts, strict=True):
            record = self.records[example.id]
            parsed = None if text is None else parse_decision(text, record.labels, record.options)
            predictions.append(
                Prediction(
                    id=example.id,
                    gold=record.answer,
                    labels=record.labels,
                    logprobs=result.label_logprobs,
                    lengths=tuple(len(label) for label in example.labels),
                    text=text,
                    parsed=parsed,
                    context_tokens=len(example.prompt),
                )
            )
        return Evaluated(
            predictions,
            sum(result.completion_nll for result in scored),
            sum(result.completion_tokens for result in scored),
        )
