"""From encoded questions to predictions: scores the labels, and lets the model write."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from medqlora.evaluation.parsing.decisions import parse_decision
from medqlora.inference.generation import writing_groups
from medqlora.inference.scoring import Decodes, Scored, score
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


@dataclass
class SetPredictions:
    """What the model answered to one question set.

    Attributes:
        test, base: with the adapter, and with it switched off (empty where that isn't asked).
        dev: of the questions that the adapter did not learn, their labels alone: what a temperature may be
            fitted on.
        prior, base_prior: log p(label) of the prompt without a question in it, in nats.
    """

    test: list[Prediction] = field(default_factory=list)
    base: list[Prediction] = field(default_factory=list)
    dev: list[Prediction] = field(default_factory=list)
    prior: tuple[float, ...] | None = None
    base_prior: tuple[float, ...] | None = None


class Evaluator:
    """Asks one model. Validation, test, prediction and single questions all go through here.

    Args:
        decoder: for the log-likelihoods.
        generate: writes text; None scores labels alone.
        tokenizer: reads the text's tokens back.
        micro_batch_tokens, packed, pad_token_id, device: as in `medqlora.inference.scoring.score`.
        rows: prompts that are written at once, at most; fewer where they have more than
            `micro_batch_tokens` together.
    """

    def __init__(
        self,
        decoder: Decodes,
        generate: Generate | None,
        *,
        tokenizer: Any,
        micro_batch_tokens: int,
        packed: bool,
        pad_token_id: int,
        device: torch.device,
        rows: int,
    ) -> None:
        self.decoder = decoder
        self.generate = generate
        self.tokenizer = tokenizer
        self.micro_batch_tokens = micro_batch_tokens
        self.packed = packed
        self.pad_token_id = pad_token_id
        self.device = device
        self.rows = rows

    def evaluate(
        self,
        examples: Sequence[Encoded],
        records: Mapping[str, Record],
        *,
        write: bool = True,
        completions: bool = False,
    ) -> Evaluated:
        """Scores, and where asked writes, for `examples`; the results are in their order.

        Args:
            examples: the questions.
            records: by id, of these questions at least.
            write: False scores labels alone, whatever `generate` is.
            completions: also score the right completions, for the loss.
        """
        scored = self._score(examples, completions)
        texts = self._write(examples) if write else [None] * len(examples)
        predictions = []
        for example, result, text in zip(examples, scored, texts, strict=True):
            record = records[example.id]
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

    def prior(self, content_free: Encoded) -> tuple[float, ...]:
        """log p(label) in nats of a prompt without a question in it, one a label."""
        return self._score([content_free], False)[0].label_logprobs

    def _score(self, examples: Sequence[Encoded], completions: bool) -> list[Scored]:
        return score(
            self.decoder,
            examples,
            micro_batch_tokens=self.micro_batch_tokens,
            packed=self.packed,
            pad_token_id=self.pad_token_id,
            device=self.device,
            completions=completions,
        )

    def _write(self, examples: Sequence[Encoded]) -> list[str | None]:
        texts: list[str | None] = [None] * len(examples)
        if self.generate is None:
            return texts
        lengths = [len(example.prompt) for example in examples]
        for group in writing_groups(lengths, self.rows, self.micro_batch_tokens):
            written = self.generate([examples[index].prompt for index in group])
            for index, ids in zip(group, written, strict=True):
                texts[index] = self.tokenizer.decode(ids, skip_special_tokens=True).strip()
        return texts


def in_order(predictions: Sequence[Prediction], examples: Sequence[Encoded]) -> list[Prediction]:
    """The predictions in the order of the data set; evaluation asks by length, and each process some."""
    place = {example.id: number for number, example in enumerate(examples)}
    return sorted(predictions, key=lambda prediction: place[prediction.id])
