"""Checks of the options, before a weight is loaded."""

from collections.abc import Sequence

from medqlora.artifacts.validated import validation_scores
from medqlora.config.model import ModelOptions, check_checkpointing, check_weights
from medqlora.config.trainer import check_precision, check_strategy_name
from medqlora.data.checks import at_with_id
from medqlora.data.question_set import QuestionSet
from medqlora.data.stage_data import StageData
from medqlora.errors import InputError
from medqlora.models import Backend
from medqlora.models.precision import DTYPES
from medqlora.models.token_ids import check_token_ids
from medqlora.records import Encoded

__all__ = [
    "DTYPES",
    "check_checkpointing",
    "check_monitor",
    "check_options",
    "check_positions",
    "check_precision",
    "check_shared",
    "check_strategy",
    "check_weights",
    "check_written",
]


def check_strategy(strategy: object) -> None:
    """Raises InputError for a strategy that shards the tensors of a 4-bit base.

    Args:
        strategy: `--trainer.strategy`, a name or Lightning's own object.
    """
    check_strategy_name(strategy if isinstance(strategy, str) else type(strategy).__name__)


def check_shared(backend: Backend, options: ModelOptions, init: str = "default") -> None:
    """Raises InputError for an option that does not go with `--trainer.strategy fsdp`.

    Args:
        backend, options: as the user gave them.
        init: `--model.lora.init` of a fit with new adapters.
    """
    if not backend.sharable:
        raise InputError(
            f"--trainer.strategy fsdp: {type(backend).__name__} loads a whole base onto each GPU: use "
            "--model.backend medqlora.models.Transformers, or ddp"
        )
    quantization = backend.options().get("quantization")
    if quantization not in ("nf4", "fp4", "gptq", "awq"):
        raise InputError(
            f"--trainer.strategy fsdp: 4-bit layers alone are shared out, and --model.backend.quantization is "
            f"{quantization}: use nf4, or ddp"
        )
    if options.weights == "cached":
        raise InputError(
            "--trainer.strategy fsdp: --model.weights cached would keep every layer whole, in 16 bits: use auto"
        )
    if init == "eva":
        raise InputError(
            "--model.lora.init eva: it runs the whole model, which --trainer.strategy fsdp shares out: use init default"
        )


def check_monitor(monitor: str, data: StageData, generate: bool) -> None:
    """Raises InputError for a score that the validation does not log; Lightning would fail after an epoch.

    Args:
        monitor: `--checkpoint.monitor`.
        data: with its validation set.
        generate: `--model.generate`.
    """
    known = scores_of(data.dev, generate)
    if monitor not in known:
        raise InputError(
            f"--checkpoint.monitor {monitor}: this validation gives {', '.join(known)}: name one of them"
        )


def scores_of(dev: Sequence[Encoded], generate: bool) -> tuple[str, ...]:
    """Names of the scores that a validation on `dev` logs; empty without validation."""
    return validation_scores(labelled=bool(dev[0].labels), written=generate) if dev else ()


def check_written(sets: Sequence[QuestionSet], generate: bool) -> None:
    """Raises InputError for free-answer questions where no answer is generated.

    Args:
        sets: question sets of `test`.
        generate: `--model.generate`.
    """
    for questions in sets:
        free = next((example for example in questions.test if not example.labels), None)
        if free is not None and not generate:
            raise InputError(
                f"--model.generate false: {at_with_id(questions.records[free.id])} has a free answer, and the score is "
                "that of the generated text: leave it out"
            )


def check_positions(backend: Backend, data: StageData) -> None:
    """Raises InputError for an example that is longer than the base model's positions, or has unknown token ids.

    Args:
        backend: of the base model.
        data: with its sets.
    """
    most, what = backend.positions()
    example = data.longest_example
    if most is not None and example is not None and data.longest > most:
        raise InputError(
            f"{example.id}: has {data.longest:,} tokens with its answer, and {what} is {most:,}: lower "
            f"--data.max_prompt_tokens (now {data.max_prompt_tokens:,}), or shorten the answer"
        )
    check_token_ids(backend, data.examples)


def check_options(options: ModelOptions) -> None:
    """Raises InputError for a value out of its range."""
    options.check()
