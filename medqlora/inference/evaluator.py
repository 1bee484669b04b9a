"""Encoded questions to predictions: scores the labels, and generates text."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from typing import NamedTuple

import torch
from torch import nn

from medqlora.config.data import EVAL_ROWS
from medqlora.config.model import EvaluationOptions
from medqlora.evaluation.parsing.decisions import parse_decision
from medqlora.inference.decoding import DecodeEngine, Sampling
from medqlora.inference.decoding.choice import cache_limits
from medqlora.inference.decoding.evaluation import TextWriter
from medqlora.inference.generation import generate, generation_groups
from medqlora.inference.scoring import Decodes, Passes, Scored, score
from medqlora.records import Encoded, Prediction, Record
from medqlora.utils.types import Tokenizer

#: prompts in, token ids of the generated texts out, in the same order
Generate = Callable[[Sequence[Sequence[int]]], list[list[int]]]


class Evaluated(NamedTuple):
    """The result of a group of questions.

    Attributes:
        predictions: one per question, in order.
        completion_nll: sum of the completions' negative log-likelihoods, in nats.
        completion_tokens: number of tokens in that sum.
    """

    predictions: list[Prediction]
    completion_nll: float
    completion_tokens: int


@dataclass
class SetPredictions:
    """The predictions for one question set.

    Attributes:
        test, base: with the adapter, and with the adapter disabled (empty where that is not evaluated).
        dev: label scores of the validation questions, from which a temperature may be fitted.
        prior, base_prior: log p(label) of the content-free prompt, in nats.
    """

    test: list[Prediction] = field(default_factory=list)
    base: list[Prediction] = field(default_factory=list)
    dev: list[Prediction] = field(default_factory=list)
    prior: tuple[float, ...] | None = None
    base_prior: tuple[float, ...] | None = None


@dataclass
class Evaluator:
    """Scores and generates with one model; validation, test, prediction and `Predictor` use it.

    Args:
        decoder: computes the log-likelihoods.
        generate: generates text; None scores labels alone.
        tokenizer: decodes the generated tokens.
        micro_batch_tokens, packed, pad_token_id, device: as in `medqlora.inference.scoring.score`.
        rows: most prompts in one generation batch; fewer where they exceed `micro_batch_tokens` together.
        writer: generates in place of `generate`, from the keys and values of the scoring passes; runs the same model
            as `decoder`.
    """

    decoder: Decodes
    generate: Generate | None
    _: KW_ONLY
    tokenizer: Tokenizer
    micro_batch_tokens: int
    packed: bool
    pad_token_id: int
    device: torch.device
    rows: int
    writer: TextWriter | None = None

    def evaluate(
        self,
        examples: Sequence[Encoded],
        records: Mapping[str, Record],
        *,
        write: bool = True,
        completions: bool = False,
    ) -> Evaluated:
        """Scores `examples`, and generates an answer to each; the results keep their order.

        Args:
            examples: the encoded questions.
            records: id → record, of these questions at least.
            write: False scores labels alone, also where the evaluator can generate.
            completions: also score the gold completions, for the loss.
        """
        if write and self.writer is not None:
            scored, generated = self.writer.write(examples, partial(self._score, examples, completions))
            texts: list[str | None] = [self._text(token_ids) for token_ids in generated]
        else:
            scored = self._score(examples, completions)
            texts = self._generate(examples) if write else [None] * len(examples)
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
        """log p(label) in nats of each label, for a prompt without a question."""
        return self._score([content_free], False)[0].label_logprobs

    def _score(
        self, examples: Sequence[Encoded], completions: bool, passes: Passes | None = None
    ) -> list[Scored]:
        return score(
            self.decoder,
            examples,
            micro_batch_tokens=self.micro_batch_tokens,
            packed=self.packed,
            pad_token_id=self.pad_token_id,
            device=self.device,
            completions=completions,
            passes=passes,
        )

    def _generate(self, examples: Sequence[Encoded]) -> list[str | None]:
        texts: list[str | None] = [None] * len(examples)
        if self.generate is None:
            return texts
        lengths = [len(example.prompt) for example in examples]
        for group in generation_groups(lengths, self.rows, self.micro_batch_tokens):
            generated = self.generate([examples[index].prompt for index in group])
            for index, token_ids in zip(group, generated, strict=True):
                texts[index] = self._text(token_ids)
        return texts

    def _text(self, token_ids: Sequence[int]) -> str:
        return self.tokenizer.decode(token_ids, skip_special_tokens=True).strip()


def build_evaluator(
    model: nn.Module,
    decoder: Decodes,
    tokenizer: Tokenizer,
    options: EvaluationOptions,
    *,
    end_token_ids: Sequence[int],
    micro_batch_tokens: int,
    rows: int | None,
    packed: bool,
    device: torch.device,
    generating: Callable[[], AbstractContextManager[None]] = nullcontext,
    engine: DecodeEngine | None = None,
    sampling: Sampling | None = None,
) -> Evaluator:
    """An evaluator of a loaded model; other arguments as in `Evaluator`.

    Args:
        model: has transformers' `generate`; in eval mode.
        options: whether to generate, and the length limit.
        end_token_ids: each of them ends a generated text.
        rows: as in `Evaluator`; None fills the free memory where `engine` generates.
        generating: context in which `model` can generate, see `Backend.generating`.
        engine: generates; its decoder is `decoder`. None for `model` itself.
        sampling: how `engine` chooses tokens; None for greedy.
    """
    pad_token_id = tokenizer.pad_token_id or 0  # padding is masked, so any token will do

    def generate_texts(prompts: Sequence[Sequence[int]]) -> list[list[int]]:
        with generating():
            return generate(
                model,
                prompts,
                max_new_tokens=options.max_new_tokens,
                end_token_ids=end_token_ids,
                pad_token_id=pad_token_id,
                device=device,
                left_padding=getattr(decoder, "state", None) is None,
            )

    limits = partial(cache_limits, rows=rows, micro_batch_tokens=micro_batch_tokens)
    return Evaluator(
        decoder,
        generate_texts if options.generate else None,
        tokenizer=tokenizer,
        micro_batch_tokens=micro_batch_tokens,
        packed=packed,
        pad_token_id=pad_token_id,
        device=device,
        rows=EVAL_ROWS if rows is None else rows,
        writer=None
        if engine is None or not options.generate
        else TextWriter(
            engine,
            limits,
            max_new_tokens=options.max_new_tokens,
            end_token_ids=end_token_ids,
            sampling=sampling,
        ),
    )


def in_order(predictions: Sequence[Prediction], examples: Sequence[Encoded]) -> list[Prediction]:
    """The predictions in the order of `examples`; evaluation sorts by length, and each process has a share."""
    positions = {example.id: position for position, example in enumerate(examples)}
    return sorted(predictions, key=lambda prediction: positions[prediction.id])
