"""The options under `--data.`: what is read, and how it is put into batches."""

import math
from dataclasses import dataclass
from typing import Literal

from medqlora.errors import InputError

Balance = Literal["none", "sampling", "loss"]
StageSchedule = Literal["one", "each"]
Rationale = Literal["none", "after", "before"]
Packing = Literal["auto", "packed", "padded"]
#: sizes of samples of a set
SAMPLES = ("train_samples", "validation_samples", "test_samples")
#: answers generated at once where neither the option nor the memory decides
EVAL_ROWS = 16
#: numbers that are at least 1
COUNTS = ("max_prompt_tokens", "batch_size", "micro_batch_tokens", "eval_batch_size", *SAMPLES)


def check_memory(value: float | None) -> None:
    """Raises InputError for an `eval_memory_gib` that is no amount of memory."""
    if value is not None and not (math.isfinite(value) and value > 0):
        raise InputError(
            f"--data.eval_memory_gib is {value}: it has to be above 0, in GiB (10 for a 12 GB GPU)"
        )


@dataclass(frozen=True)
class DataOptions:
    """All plain options of `PubMedQADataModule`.

    Args:
        questions: a file of questions for `predict`, .jsonl, .json, .csv or .parquet, with a `question` and optionally
            `id`, `contexts` and `options`; null takes the source's test questions.
        prompt: medical, chat (the tokenizer's chat template), lm_eval (lm-evaluation-harness's), or the class path of a
            prompt of one's own.
        max_prompt_tokens: longer prompts have their context shortened, never the question or the answer.
        batch_size: examples in one optimizer step, over all processes.
        micro_batch_tokens: tokens that go through the model at once: memory and speed depend on it, the result does
            not; "auto" takes what `medqlora plan` finds to be fastest in the GPU's free memory.
        packing: "packed" rows hold several examples that don't attend to each other, "padded" rows one; "auto" packs
            where a comparison on the model at start shows no difference.
        topics: keep the questions of these topics alone, in every set of `data.source`: a branch of MeSH by tree number
            (C14, [C14, C04]) or name, a heading, or a topic of your own data; null keeps all.
        train_samples: train on this many examples, drawn by `seed`; null for all.
        validation_samples: a quick look: validate on this many questions, each label in its share, drawn by `seed`;
            every score then says that it is a sample's. Null for all.
        test_samples: the same of each set that `test` evaluates, and of the source's own in `predict`.
        rationale: of a question with labels: "after" learns the decision and then its rationale; "none" the decision
            alone; "before" the rationale and then the decision, which evaluation scores after the rationale that the
            model generates (max_new_tokens has to hold it). Rationales come from the source, of `JSONLines` from the
            column `rationale` or `long_answer`.
        balance: of the training questions' labels: "loss" weighs each question by its label, N / (K n) for n of N
            questions and K labels; "sampling" draws as many of each label in an epoch, as long as before; "none" takes
            them as they are.
        label_smoothing: share of the label token's target that is spread over the question's labels, 0 to below 1;
            no other token is smoothed (https://arxiv.org/abs/1512.00567; 0.1 is usual).
        stage_schedule: of a training in stages: "one" schedule of the rate over all of them, or "each" its own, with a
            warm-up of its own.
        eval_batch_size: answers generated at once in evaluation, at most; fewer where their prompts have more than
            `micro_batch_tokens` together. "auto" fills the free memory where the decode engine generates, and is 16
            elsewhere.
        eval_memory_gib: GPU memory, the model's included, up to which the texts of an evaluation may fill it where the
            decode engine generates: fewer are generated at once, down to one. Null for what is free.
        seed: of the sample, the order of the examples and the adapters' initialisation.
        allow_test_questions: train although training or validation holds test questions of a published benchmark; the
            adapter's record says so.
    """

    questions: str | None = None
    prompt: str = "medical"
    max_prompt_tokens: int = 1024
    batch_size: int = 8
    micro_batch_tokens: int | Literal["auto"] = 2048
    packing: Packing = "auto"
    topics: list[str] | str | None = None
    train_samples: int | None = None
    validation_samples: int | None = None
    test_samples: int | None = None
    rationale: Rationale = "after"
    balance: Balance = "none"
    label_smoothing: float = 0.0
    stage_schedule: StageSchedule = "one"
    eval_batch_size: int | Literal["auto"] = EVAL_ROWS
    eval_memory_gib: float | None = None
    seed: int = 0
    allow_test_questions: bool = False

    @property
    def selected_topics(self) -> tuple[str, ...]:
        """`topics` as a tuple; none for all questions."""
        return (self.topics,) if isinstance(self.topics, str) else tuple(self.topics or ())

    @property
    def eval_memory(self) -> int | None:
        """`eval_memory_gib` in bytes."""
        return None if self.eval_memory_gib is None else int(self.eval_memory_gib * 2**30)

    def check(self) -> None:
        """Raises InputError for values that no data can make right."""
        check_memory(self.eval_memory_gib)
        for option in COUNTS:
            value = getattr(self, option)
            if value not in (None, "auto") and value < 1:
                raise InputError(f"--data.{option} is {value}: it has to be at least 1")
        if not 0 <= self.label_smoothing < 1:
            raise InputError(
                f"--data.label_smoothing is {self.label_smoothing}: it is a share, 0 to below 1 (0.1 is usual)"
            )
        if not -(2**63) <= self.seed < 2**63:  # what torch takes
            raise InputError(f"--data.seed is {self.seed}: it has to be below 2**63")
