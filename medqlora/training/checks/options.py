"""What can be known of the module's and the Trainer's options before a weight is loaded."""

from dataclasses import fields
from typing import Any

from medqlora.artifacts.validated import validation_scores
from medqlora.config.model import ModelOptions, check_checkpointing, check_weights
from medqlora.config.trainer import check_precision, check_strategy_name
from medqlora.data.checks import at_with_id
from medqlora.distributed.processes import DDPStrategy4bit
from medqlora.errors import InputError
from medqlora.fused.support import ARCHITECTURES
from medqlora.models.precision import DTYPES
from medqlora.models.token_ids import check_token_ids
from medqlora.training.checks.trainer import check_trainer

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


def check_strategy(given: Any) -> None:
    """Raises InputError for what would shard a base in a way that a 4-bit one can't be.

    Args:
        given: `--trainer.strategy`, a name or Lightning's own object.
    """
    check_strategy_name(given if isinstance(given, str) else type(given).__name__)


def check_shared(module: Any, data: Any, config: Any) -> None:
    """Raises InputError for an option that doesn't go with `--trainer.strategy fsdp`.

    Args:
        module: the QLoRAModule.
        data: its datamodule.
        config: the base's, for what will be trained; None for what won't: scoring and writing can do with the
            model's own forward.
    """
    backend = module.backend
    if not backend.sharable:
        raise InputError(
            f"--trainer.strategy fsdp: {type(backend).__name__} loads a whole base onto each GPU: use "
            "--model.backend medqlora.models.Transformers, or ddp"
        )
    quantization = backend.options().get("quantization")
    if quantization not in ("nf4", "fp4"):
        raise InputError(
            f"--trainer.strategy fsdp: 4-bit layers alone are shared out, and --model.backend.quantization is "
            f"{quantization}: use nf4, or ddp"
        )
    if module.weights == "cached":
        raise InputError(
            "--trainer.strategy fsdp: --model.weights cached would keep every layer whole, in 16 bits: use auto"
        )
    if config is None:
        return
    if module.engine == "native":
        raise InputError(
            "--trainer.strategy fsdp: --model.engine native keeps a layer's weights for its backward, and they are "
            "given back: use auto, or --trainer.strategy ddp"
        )
    if data.packing == "padded":
        raise InputError(
            "--trainer.strategy fsdp: it trains with the fused engine, which takes no padded rows: use "
            "--data.packing auto, or --trainer.strategy ddp"
        )
    if module.lora.use_dora:
        raise InputError(
            "--trainer.strategy fsdp: it trains with the fused engine, which has no DoRA: use --model.lora.use_dora "
            "false, or --trainer.strategy ddp"
        )
    kind = config.get_text_config().model_type
    if kind not in ARCHITECTURES:
        raise InputError(
            f"--trainer.strategy fsdp: it trains with the fused engine, which knows {', '.join(ARCHITECTURES)}, and "
            f"'{backend.base}' is {kind}: use --trainer.strategy ddp"
        )


def check_monitor(monitor: str, data: Any, generate: bool) -> None:
    """Raises InputError for a score that the validation will not give; Lightning would find out after an epoch.

    Args:
        monitor: `--checkpoint.monitor`.
        data: the datamodule, read.
        generate: `--model.generate`.
    """
    known = validation_scores(labelled=bool(data.dev[0].labels), written=generate)
    if monitor not in known:
        raise InputError(
            f"--checkpoint.monitor {monitor}: this validation gives {', '.join(known)}: name one of them"
        )


def check_written(sets: Any, generate: bool) -> None:
    """Raises InputError for questions whose score is that of a text which would not be written.

    Args:
        sets: the datamodule's `sets`.
        generate: `--model.generate`.
    """
    for one in sets:
        free = next((example for example in one.test if not example.labels), None)
        if free is not None and not generate:
            raise InputError(
                f"--model.generate false: {at_with_id(one.records[free.id])} has a free answer, and the score is that "
                "of what the model writes: leave it out"
            )


def check_positions(backend: Any, data: Any) -> None:
    """Raises InputError for an example that is longer than the model was made for; it would answer at random.

    Args:
        backend: the base's.
        data: the datamodule, read.
    """
    most, what = backend.positions()
    if most is not None and data.longest > most:
        example = data.longest_example
        raise InputError(
            f"{example.id}: has {data.longest:,} tokens with its answer, and {what} is {most:,}: lower "
            f"--data.max_prompt_tokens (now {data.max_prompt_tokens:,}), or shorten the answer"
        )
    asked = [example for one in data.sets for example in one.test]
    check_token_ids(backend, [*data.train, *data.dev, *data.test, *asked])


def check_options(module: Any, trainer: Any) -> None:
    """Raises InputError for an option that can't be.

    Args:
        module: the QLoRAModule, with its options as attributes.
        trainer: that it will be run by.
    """
    check_precision(str(trainer.precision))
    check_strategy(trainer.strategy)
    if trainer.world_size > 1 and not isinstance(trainer.strategy, DDPStrategy4bit):
        raise InputError(
            f"--trainer.strategy {type(trainer.strategy).__name__}: it would wrap a model whose gradients are added "
            "up here: use auto or ddp, or fsdp for a base that is too large for one GPU; in a program of your own "
            "strategy=medqlora.distributed.processes.DDPStrategy4bit()"
        )
    check_trainer(trainer)
    now = {field.name: getattr(module, field.name) for field in fields(ModelOptions)}
    ModelOptions(**now).check()
