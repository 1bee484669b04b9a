"""What engines share: a job to token ids, and scores and text to an answer."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from medqlora.data import Prompt, encode_all
from medqlora.data.encoding.image_slots import ImageReader
from medqlora.errors import InputError
from medqlora.evaluation.parsing.decisions import parse_decision
from medqlora.inference.answer import Answer, answer_of
from medqlora.inference.calibration import Calibration
from medqlora.inference.training_scope import TrainingScope
from medqlora.records import Encoded, Prediction, Record
from medqlora.serving.engine import Job, ServedModel
from medqlora.utils.types import Tokenizer

#: the question of the self-test; nothing depends on its answer but that it stays the same
SELF_TEST = Record(
    "self-test",
    "Does metformin lower blood glucose in adults with type 2 diabetes?",
    ("In a trial of 420 adults, fasting glucose fell more with metformin than with placebo.",),
)


@dataclass(frozen=True)
class Spoken:
    """How one model is asked and its answers are read.

    Attributes:
        served: what clients are told of it.
        prompt, tokenizer, max_prompt_tokens: make token ids of a question.
        calibration: of its confidence; None without one.
        scope: what the model was trained on; None for a bare base model.
        note: text that every answer ends with.
        images: counts the tokens of images; None for a base that reads text alone.
    """

    served: ServedModel
    prompt: Prompt
    tokenizer: Tokenizer
    max_prompt_tokens: int
    calibration: Calibration | None
    scope: TrainingScope | None
    note: str
    images: ImageReader | None = None

    def encode(self, job: Job) -> Encoded:
        """The job's question as token ids.

        Raises:
            InputError: it is too long, or not valid Unicode.
        """
        return self.encode_record(record_of(job, self.served))

    def encode_record(self, record: Record) -> Encoded:
        for text in (record.question, *record.contexts, *record.options.values()):
            if any("\ud800" <= letter <= "\udfff" for letter in text):
                raise InputError("the question, a context or an option is no valid Unicode")
        return encode_all(
            [record],
            self.prompt,
            self.tokenizer,
            self.max_prompt_tokens,
            images=self.images,
            progress=False,
            cached=False,
        )[0]

    def answer(
        self, job: Job, logprobs: Sequence[float], lengths: Sequence[int], text: str | None = None
    ) -> Answer:
        """The answer by the labels' log-likelihoods in nats, and the generated text where there is one."""
        record = record_of(job, self.served)
        parsed = None if text is None else parse_decision(text, record.labels, record.options)
        prediction = Prediction(
            job.id, None, record.labels, tuple(logprobs), tuple(lengths), text=text, parsed=parsed
        )
        return answer_of(prediction, record, self.calibration, self.note, self.scope)


def record_of(job: Job, served: ServedModel) -> Record:
    """The job's question, with the model's decisions where it has no options."""
    record = job.record
    return replace(record, id=job.id, labels=tuple(record.options) or record.labels or served.labels)


def served_model(
    name: str,
    base: str,
    labels: Sequence[str],
    calibration: Calibration | None,
    *,
    wants_context: bool = False,
    remarks: Sequence[str] = (),
    reads_images: bool = False,
) -> ServedModel:
    """What clients are told of a model."""
    return ServedModel(
        name,
        base.rstrip("/\\").replace("\\", "/").rpartition("/")[2],
        tuple(labels),
        None if calibration is None else calibration.threshold,
        None if calibration is None else calibration.n,
        wants_context,
        tuple(remarks),
        reads_images,
    )
