"""Encoded questions to predictions: scores the labels, and generates text."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import partial
from typing import NamedTuple, Protocol

import torch
from torch import nn

from medqlora.config.data import EVAL_ROWS
from medqlora.config.model import EvaluationOptions
from medqlora.errors import InputError
from medqlora.evaluation.parsing.decisions import parse_decision
from medqlora.inference.decoding import ACTIVE, DecodeEngine, Sampling
from medqlora.inference.decoding.choice import cache_limits
from medqlora.inference.decoding.evaluation import TextWriter
from medqlora.inference.generation import OnToken, generate, generation_groups
from medqlora.inference.scoring import Decodes, Passes, Scored, score
from medqlora.records import Encoded, Prediction, Record
from medqlora.utils.types import Tokenizer

#: called with the number of questions that are finished, parts of one included
Watch = Callable[[float], None]
#: share of the work on a question that scoring is, where text is generated too; it orders no result
_SCORING = 0.25
#: a text's first lead may have as many tokens more than one inside of a text
_MORE_TOKENS = 4


class Generate(Protocol):
    """Generates a text for each example's prompt."""

    def __call__(self, examples: Sequence[Encoded], on_token: OnToken | None = None) -> list[list[int]]:
        """The token ids of each text, in the order of the examples, without end tokens.

        `on_token` is called with each new token of a single prompt, as soon as it is chosen.
        """


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
        conditions: label scores of the test questions put in other ways: alone, or with their own contexts.
        prior, base_prior: log p(label) of the content-free prompt, in nats.
    """

    test: list[Prediction] = field(default_factory=list)
    base: list[Prediction] = field(default_factory=list)
    dev: list[Prediction] = field(default_factory=list)
    conditions: dict[str, list[Prediction]] = field(default_factory=dict)
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
        watch: Watch = lambda count: None,
    ) -> Evaluated:
        """Scores `examples`, and generates an answer to each; the results keep their order.

        Args:
            examples: the encoded questions.
            records: id → record, of these questions at least.
            write: False scores labels alone, also where the evaluator can generate.
            completions: also score the gold completions, for the loss.
            watch: called whenever a part of the questions is scored or answered.
        """
        if any(example.lead for example in examples):
            return self._rationale_first(examples, records, completions=completions, watch=watch)
        writes = write and self.generate is not None
        share = _SCORING if writes else 1.0

        def scores(passes: Passes | None = None) -> list[Scored]:
            return self._score(examples, completions, lambda count: watch(share * count), passes)

        def written(count: float) -> None:
            watch(_SCORING * len(examples) + (1 - _SCORING) * count)

        texts: list[str | None] = [None] * len(examples)
        if writes and self.writer is not None:
            scored, generated = self.writer.write(examples, scores, on_end=written)
            texts = [self._text(token_ids) for token_ids in generated]
        else:
            scored = scores()
            if writes:
                texts = [self._text(token_ids) for token_ids in self._generate(examples, written)]
        predictions = [
            _with_text(_scored_prediction(example, result, records[example.id]), text, records[example.id])
            for example, result, text in zip(examples, scored, texts, strict=True)
        ]
        return Evaluated(
            predictions,
            sum(result.completion_nll for result in scored),
            sum(result.completion_tokens for result in scored),
        )

    def _rationale_first(
        self,
        examples: Sequence[Encoded],
        records: Mapping[str, Record],
        *,
        completions: bool,
        watch: Watch,
    ) -> Evaluated:
        """`evaluate` where the decision follows a rationale: it is scored after the one that the model generates."""
        if self.generate is None:
            raise InputError(
                "data.rationale before: this adapter decides after a rationale that it generates, and nothing is "
                "generated here: use `validate`, `test`, `predict` or `ask`, or train with --data.rationale after"
            )
        share = 1 - _SCORING
        if self.writer is None:
            generated = self._generate(examples, lambda count: watch(share * count))
        else:
            _, generated = self.writer.write(
                examples, lambda passes: None, on_end=lambda count: watch(share * count)
            )
        thought = [
            after_rationale(example, ids, self._text)
            for example, ids in zip(examples, generated, strict=True)
        ]
        scored = self._score(thought, False, lambda count: watch(share * len(examples) + _SCORING * count))
        learned = [one._replace(labels=()) for one in examples] if completions else []
        losses = self._score(learned, True) if learned else []
        predictions = [
            _with_text(
                _scored_prediction(example, result, records[example.id]), self._text(ids), records[example.id]
            )
            for example, result, ids in zip(examples, scored, generated, strict=True)
        ]
        return Evaluated(
            predictions,
            sum(result.completion_nll for result in losses),
            sum(result.completion_tokens for result in losses),
        )

    def stream(self, example: Encoded, record: Record, report: Callable[[Prediction], None]) -> Prediction:
        """The prediction of one question, as `evaluate` gives it, and meanwhile what is known of it.

        Args:
            example: the encoded question.
            record: the question.
            report: is called with the prediction when the labels are scored, and again after each new token, with the
                text so far and nothing parsed from it. An error that it raises ends the generation.
        """

        if example.lead:
            prediction = self.evaluate([example], {record.id: record}).predictions[0]
            report(prediction)
            return prediction
        tokens: list[int] = []
        scored: list[Prediction] = []

        def scores(passes: Passes | None = None) -> None:
            tokens.clear()  # out of memory begins again
            scored[:] = [_scored_prediction(example, self._score([example], False, passes=passes)[0], record)]
            report(scored[0])

        def on_token(token: int) -> None:
            tokens.append(token)
            report(replace(scored[0], text=self._text(tokens)))

        if self.writer is not None:
            _, (token_ids,) = self.writer.write(
                [example], scores, on_token=lambda example, token: on_token(token)
            )
        else:
            scores()
            if self.generate is None:
                return scored[0]
            (token_ids,) = self.generate([example], on_token)
        return _with_text(scored[0], self._text(token_ids), record)

    def prior(self, content_free: Encoded) -> tuple[float, ...]:
        """log p(label) in nats of each label, for a prompt without a question."""
        if content_free.lead:
            content_free = content_free._replace(prompt=[*content_free.prompt, *content_free.lead])
        return self._score([content_free], False)[0].label_logprobs

    def _score(
        self,
        examples: Sequence[Encoded],
        completions: bool,
        watch: Watch = lambda count: None,
        passes: Passes | None = None,
    ) -> list[Scored]:
        return score(
            self.decoder,
            examples,
            micro_batch_tokens=self.micro_batch_tokens,
            packed=self.packed,
            pad_token_id=self.pad_token_id,
            device=self.device,
            completions=completions,
            watch=watch,
            passes=passes,
        )

    def _generate(self, examples: Sequence[Encoded], watch: Watch) -> list[list[int]]:
        """The tokens of each text, by `generate`."""
        texts: list[list[int]] = [[] for _ in examples]
        assert self.generate is not None
        answered = 0
        lengths = [len(example.prompt) for example in examples]
        for group in generation_groups(lengths, self.rows, self.micro_batch_tokens):
            generated = self.generate([examples[index] for index in group])
            for index, token_ids in zip(group, generated, strict=True):
                texts[index] = list(token_ids)
            answered += len(group)
            watch(answered)
        return texts

    def _text(self, token_ids: Sequence[int]) -> str:
        return self.tokenizer.decode(token_ids, skip_special_tokens=True).strip()


def after_rationale(
    example: Encoded, generated: Sequence[int], text: Callable[[Sequence[int]], str]
) -> Encoded:
    """The question with its prompt up to where the decision is due: prompt, generated rationale, `lead`.

    What was generated from `lead` on is left out; without a `lead` all of it is the rationale. A text that begins with
    `lead` has no rationale. Its tokens there may be others ("Answer" without the space that " Answer" has after a
    rationale), and are kept as they were generated.

    Args:
        example: the question.
        generated: token ids.
        text: decodes token ids, without white space around them.
    """
    lead, size = example.lead, len(example.lead)
    ends = (at for at in range(len(generated) - size + 1) if tuple(generated[at : at + size]) == lead)
    rationale = generated[: next(ends, len(generated))]
    for at in range(1, min(size + _MORE_TOKENS, len(generated)) + 1):
        if text(generated[:at]) == text(lead):
            rationale, lead = generated[:at], ()
            break
    return example._replace(prompt=[*example.prompt, *rationale, *lead], completion=())


def _scored_prediction(example: Encoded, scored: Scored, record: Record) -> Prediction:
    """The prediction without a text."""
    return Prediction(
        id=example.id,
        gold=record.answer,
        labels=record.labels,
        logprobs=scored.label_logprobs,
        lengths=tuple(len(label) for label in example.labels),
        context_tokens=len(example.prompt),
    )


def _with_text(prediction: Prediction, text: str | None, record: Record) -> Prediction:
    """The prediction with its generated text and the decision that it states."""
    parsed = None if text is None else parse_decision(text, record.labels, record.options)
    return replace(prediction, text=text, parsed=parsed)


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
    memory: int | None = None,
    adapter: str | None = ACTIVE,
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
        memory: bytes of a GPU's memory that `engine` may fill; None for what is free.
        adapter: that `engine` generates with, as of `Request`; `decoder` is the same one's.
    """
    pad_token_id = tokenizer.pad_token_id or 0  # padding is masked, so any token will do
    length, inputs = options.max_new_tokens, getattr(decoder, "image_inputs", None)

    def generate_texts(examples: Sequence[Encoded], on_token: OnToken | None = None) -> list[list[int]]:
        with generating():
            prompts = [example.prompt for example in examples]
            return generate(
                model, prompts, max_new_tokens=length, end_token_ids=end_token_ids, pad_token_id=pad_token_id,
                device=device,
                left_padding=getattr(decoder, "state", None) is None,
                on_token=on_token,
                images=None if inputs is None else ([one.images for one in examples], inputs),
            )  # fmt: skip

    limits = partial(cache_limits, rows=rows, micro_batch_tokens=micro_batch_tokens, memory=memory)
    writer = None
    if engine is not None and options.generate:
        writer = TextWriter(
            engine, limits, max_new_tokens=length, end_token_ids=end_token_ids, sampling=sampling, adapter=adapter
        )  # fmt: skip
    return Evaluator(
        decoder, generate_texts if options.generate else None, tokenizer=tokenizer,
        micro_batch_tokens=micro_batch_tokens, packed=packed, pad_token_id=pad_token_id, device=device,
        rows=EVAL_ROWS if rows is None else rows,
        writer=writer,
    )  # fmt: skip


def in_order(predictions: Sequence[Prediction], examples: Sequence[Encoded]) -> list[Prediction]:
    """The predictions in the order of `examples`; evaluation sorts by length, and each process has a share."""
    positions = {example.id: position for position, example in enumerate(examples)}
    return sorted(predictions, key=lambda prediction: positions[prediction.id])
