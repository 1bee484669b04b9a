"""Predictions and answers of a loaded model: a base model, with or without an adapter, without a Trainer."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import nn

from medqlora.config.model import EvaluationOptions
from medqlora.data import Prompt, encode_all, end_token_ids, lookup
from medqlora.data.encoding.image_slots import ImageReader
from medqlora.data.images import image_file
from medqlora.errors import InputError
from medqlora.inference.answer import Answer, answer_of, safe_answer
from medqlora.inference.calibration import Calibration
from medqlora.inference.decoding import ACTIVE, DecodeEngine, Sampling
from medqlora.inference.decoding.choice import decode_engine
from medqlora.inference.decoding.evaluation import OneAdapter
from medqlora.inference.evaluator import Evaluator, Watch, build_evaluator
from medqlora.inference.loading import build_backend, check_files, pick_device, read_trained, remarks_of
from medqlora.inference.scoring import Decodes
from medqlora.inference.streaming import AnswerPart, PartsOfAnswer, Report, iterate
from medqlora.inference.training_scope import TrainingScope
from medqlora.models.precision import DTYPES, compute_in_float32
from medqlora.models.token_ids import check_token_ids
from medqlora.records import YES_NO_MAYBE, Encoded, Prediction, Record, lettered
from medqlora.safety import NOTE, check_note, screen
from medqlora.utils.types import Tokenizer

#: makes the engine of a loaded model; None where the model's own forward scores, and transformers generates
MakeEngine = Callable[[nn.Module, torch.device], DecodeEngine | None]


@dataclass(eq=False, repr=False)
class Predictor:
    """Predictions and answers of one loaded model.

    `Predictor.load` makes one from an adapter's folder; the constructor takes the loaded pieces.

    Args:
        model: in eval mode; has transformers' `generate`.
        decoder: `model` as the scorer uses it, see `Backend.decoder`.
        tokenizer: the base model's.
        prompt: the prompt that the adapter was trained with.
        options: whether to generate, and the length limit.
        device: the model's.
        max_prompt_tokens: longer prompts have their context shortened.
        micro_batch_tokens: tokens that go through the model at once; None for `max_prompt_tokens`.
        rows: most answers generated at once; None fills the free memory where `engine` generates.
        memory: bytes of a GPU's memory that `engine` may fill; None for what is free.
        packed: whether a row may hold several examples, see `medqlora.inference.scoring.score`.
        autocast: data type of `torch.autocast`; None leaves the precision to the caller.
        generating: context in which `model` can generate, see `Backend.generating`.
        check_examples: raises InputError for examples that the model can't take.
        engine: scores in place of `decoder`, and generates, where the fused engine runs the model.
        adapter: that `engine` runs: PEFT's name of it, None for none, or ACTIVE for the one that is switched on.
        sampling: how `engine` chooses tokens; None for greedy.
        labels: the decisions for a question without options; empty for free answers.
        calibration: of the adapter's confidence; None where it has none.
        scope: what the adapter was trained on; None where that is not known.
        wants_context: whether the adapter was trained with contexts.
        remarks: what a user has to know of the loaded model, a line each.
        images: counts the tokens of the questions' images; None for a base that reads text alone.
    """

    model: nn.Module
    decoder: Decodes
    tokenizer: Tokenizer
    prompt: Prompt
    options: EvaluationOptions
    _: KW_ONLY
    device: torch.device
    max_prompt_tokens: int = 1024
    micro_batch_tokens: int | None = None
    rows: int | None = 16
    memory: int | None = None
    packed: bool = False
    autocast: torch.dtype | None = None
    generating: Callable[[], AbstractContextManager[None]] = nullcontext
    check_examples: Callable[[Sequence[Encoded]], None] = lambda examples: None
    engine: DecodeEngine | None = None
    adapter: str | None = ACTIVE
    sampling: Sampling | None = None
    labels: tuple[str, ...] = YES_NO_MAYBE
    calibration: Calibration | None = None
    scope: TrainingScope | None = None
    wants_context: bool = False
    remarks: tuple[str, ...] = ()
    images: ImageReader | None = None
    #: scores and generates for encoded questions
    evaluator: Evaluator = field(init=False)

    def __post_init__(self) -> None:
        """Raises InputError where the prompt and the tokenizer don't fit."""
        self.evaluator = self._evaluator()

    def _evaluator(self) -> Evaluator:
        return build_evaluator(
            self.model,
            self.decoder if self.engine is None else OneAdapter(self.engine, self.adapter),
            self.tokenizer,
            self.options,
            end_token_ids=end_token_ids(self.prompt, self.tokenizer),
            micro_batch_tokens=self.micro_batch_tokens or self.max_prompt_tokens,
            rows=self.rows,
            packed=self.packed or self.engine is not None,
            device=self.device,
            generating=self.generating,
            engine=self.engine,
            sampling=self.sampling,
            memory=self.memory,
            adapter=self.adapter,
        )

    @classmethod
    def load(
        cls,
        adapter_or_base: str | Path,
        *,
        base: str | None = None,
        backend: str | None = None,
        device: str | torch.device = "auto",
        prompt: str | None = None,
        precision: str | None = None,
        generate: bool = True,
        max_new_tokens: int = 96,
        option: str = "adapter_or_base",
        make_engine: MakeEngine = decode_engine,
    ) -> "Predictor":
        """Loads a model as its adapter's record says that it was trained.

        Args:
            adapter_or_base: an adapter's folder in PEFT's format, a run's folder, or a name on the Hub; or a base model
                without an adapter, by its folder or its name on the Hub.
            base: the base model's name or folder, where it differs from the adapter's record.
            backend: a class of `medqlora.models`, see `BACKEND_NAMES`; None for the record's, but on a CPU
                `Transformers` for Unsloth.
            device: auto (CUDA where there is a GPU), or a device of torch: cpu, cuda, cuda:1.
            prompt: the prompt's name; None for the record's, or `medical`.
            precision: 32-true, bf16-mixed or 16-mixed; None for the record's, or 32-true. A CPU computes in 32 bits.
            generate, max_new_tokens: whether to generate a text as well as to score labels, and its limit in tokens.
            option: what named `adapter_or_base`, for messages.
            make_engine: makes `engine` for the loaded model, unless that reads images.

        Raises:
            InputError: there is no such adapter or base model, or it can't be loaded.
        """
        target = device if isinstance(device, torch.device) else pick_device(device)
        _check_precision(precision)
        trained = read_trained(str(adapter_or_base), option)
        made = build_backend(trained, base=base, backend=backend, device=target)
        template = lookup(prompt or trained.prompt, rationale_first=True)
        check_files(made, trained, option)
        tokenizer = made.tokenizer()
        dtype = _dtype(precision or trained.precision, target)
        model = made.load(lora=None, adapter=trained.adapter, device=target, dtype=dtype, seed=0).eval()
        return cls(
            model,
            decoder := made.decoder(model),
            tokenizer,
            template,
            EvaluationOptions(generate=generate, max_new_tokens=max_new_tokens),
            device=target,
            max_prompt_tokens=trained.max_prompt_tokens,
            engine=None if decoder.reads_images else make_engine(model, target),
            autocast=None if dtype == torch.float32 else dtype,
            generating=partial(made.generating, model),
            check_examples=partial(check_token_ids, made),
            labels=trained.labels,
            calibration=trained.calibration,
            scope=trained.scope,
            wants_context=trained.with_contexts,
            remarks=remarks_of(trained, made),
            images=made.images(),
        )

    def compute_in_float32(self) -> None:
        """From now on computes in float32, for comparisons; see `medqlora.models.precision.compute_in_float32`."""
        compute_in_float32(self.model)
        self.autocast = None
        self.engine = None  # it has read the weights in their own type
        self.evaluator = self._evaluator()

    def predict(
        self,
        records: Sequence[Record],
        examples: Mapping[str, Encoded] | None = None,
        watch: Watch = lambda count: None,
    ) -> list[Prediction]:
        """Label log-likelihoods and generated texts, in the order of `records`.

        Args:
            records: questions with different ids.
            examples: id → the encoded question, where that exists already.
            watch: called with the number of questions that are finished, parts of one included.

        Raises:
            InputError: a question is too long, or a text is not valid Unicode.
            ValueError: two records have the same id.
        """
        by_id = {record.id: record for record in records}
        if len(by_id) < len(records):
            raise ValueError("two records have the same id")
        if not records:
            return []
        encoded = self._encode(records) if examples is None else [examples[record.id] for record in records]
        with self._precision():
            return self.current_evaluator().evaluate(encoded, by_id, watch=watch).predictions

    def current_evaluator(self) -> Evaluator:
        """The evaluator; without `engine` once PEFT has another adapter switched on than the engine was made with."""
        if self.engine is not None and self.adapter == ACTIVE and not self.engine.decoder.has_its_adapter:
            self.engine = None
            self.evaluator = self._evaluator()
        return self.evaluator

    def _encode(self, records: Sequence[Record]) -> list[Encoded]:
        _check_texts(records)
        encoded = encode_all(
            records,
            self.prompt,
            self.tokenizer,
            self.max_prompt_tokens,
            images=self.images,
            progress=False,
            cached=False,
        )
        self.check_examples(encoded)
        return encoded

    def _precision(self) -> AbstractContextManager[object]:
        return nullcontext() if self.autocast is None else torch.autocast(self.device.type, self.autocast)

    def answers(
        self, records: Sequence[Record], note: str = NOTE, examples: Mapping[str, Encoded] | None = None
    ) -> list[Answer]:
        """Answers that a person may be shown, in the order of `records`.

        A question that calls for a fixed reply (`medqlora.safety.screen`) never reaches the model.

        Args:
            records: questions with different ids.
            note: text that every answer ends with.
            examples: as in `predict`.

        Raises:
            InputError, ValueError: as `predict`; the note is empty, see `check_note`.
        """
        replies = {record.id: screen(record.question) for record in records}
        asked = [record for record in records if replies[record.id] is None]
        predictions = {prediction.id: prediction for prediction in self.predict(asked, examples)}
        answers = []
        for record in records:
            reply = replies[record.id]
            answers.append(
                self._answer_of(record, predictions[record.id], note=note)
                if reply is None
                else safe_answer(record, reply, note)
            )
        return answers

    def answer(
        self,
        question: str,
        context: str | Sequence[str] | None = None,
        options: Sequence[str] | Mapping[str, str] | None = None,
        note: str = NOTE,
        images: Sequence[str | Path] = (),
    ) -> Answer:
        """The answer to one question.

        Args:
            question: the question alone.
            context: the passage, or the passages, to answer it from.
            options: for multiple choice, the options' texts (labelled A, B, …), or label → text.
            note: text that the answer ends with.
            images: files of the images that the question is about.

        Raises:
            InputError: a text is not valid Unicode, the question is too long, the note is empty, or a file is no image.
        """
        return self.answers([self._asked(question, context, options, images)], note)[0]

    def answer_stream(
        self,
        question: str,
        context: str | Sequence[str] | None = None,
        options: Sequence[str] | Mapping[str, str] | None = None,
        note: str = NOTE,
        images: Sequence[str | Path] = (),
    ) -> Generator[AnswerPart, None, None]:
        """The answer to one question in parts: the decision as soon as it is known, then the text word by word.

        The last part has the answer that `answer` gives. The model runs in a thread of its own; closing the iterator
        ends the generation.

        Args:
            question, context, options, note, images: as in `answer`.

        Raises:
            InputError: as `answer`, at the call.
        """
        record = self._asked(question, context, options, images)
        reply = screen(question)
        if reply is not None:
            part = AnswerPart(safe_answer(record, reply, note), "", complete=True)
            return (one for one in (part,))
        check_note(note, "note")
        (encoded,) = self._encode([record])

        def run(report: Report) -> None:
            parts = PartsOfAnswer(record, partial(self._answer_of, record, note=note), report)
            with self._precision():
                prediction = self.current_evaluator().stream(encoded, record, parts.so_far)
            parts.complete(self._answer_of(record, prediction, note=note))

        return iterate(run)

    def _asked(
        self,
        question: str,
        context: str | Sequence[str] | None,
        options: Sequence[str] | Mapping[str, str] | None,
        images: Sequence[str | Path],
    ) -> Record:
        if images and self.images is None:
            raise InputError(
                "--image: this model reads text alone: use an adapter of a vision-language base "
                "(configs/demo_images.yaml), or leave the image out"
            )
        return one_question(question, context, options, self.labels, images)

    def _answer_of(self, record: Record, prediction: Prediction, *, note: str) -> Answer:
        return answer_of(prediction, record, self.calibration, note, self.scope)


def one_question(
    question: str,
    context: str | Sequence[str] | None,
    options: Sequence[str] | Mapping[str, str] | None,
    labels: tuple[str, ...],
    images: Sequence[str | Path] = (),
) -> Record:
    """One question as a record with the id "question"; `labels` are the decisions where there are no options.

    Raises:
        InputError: a file of `images` is missing or no image.
    """
    choices = options if isinstance(options, Mapping) else lettered(options or ())
    passages = () if context is None else (context,) if isinstance(context, str) else tuple(context)
    files = tuple(image_file(Path(image).expanduser(), "--image") for image in images)
    return Record(
        "question", question, passages, options=choices, labels=tuple(choices) or labels, images=files
    )


def _dtype(precision: str | None, device: torch.device) -> torch.dtype:
    """The type that a model is loaded in."""
    named = DTYPES.get(precision or "", torch.float32)
    return torch.float32 if device.type == "cpu" else named


def _check_precision(precision: str | None) -> None:
    if precision is not None and precision not in DTYPES:
        raise InputError(f"precision is {precision!r}: choose one of {', '.join(DTYPES)}")


def _check_texts(records: Sequence[Record]) -> None:
    """Raises InputError for lone surrogates, Python's form of bytes that are no UTF-8, which no tokenizer takes."""
    for record in records:
        for text in (record.question, *record.contexts, *record.options.values()):
            if any("\ud800" <= letter <= "\udfff" for letter in text):
                raise InputError(f"{text[:80]!r}: not a text in UTF-8: write it as one")
