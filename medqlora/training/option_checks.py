"""What can be known of the module's and the Trainer's options before a weight is loaded."""

import math
from typing import Any

import torch

from medqlora.errors import InputError
from medqlora.training.processes import OneMessage

#: `--trainer.precision` → what the quantized layers compute in
DTYPES = {
    "16-mixed": torch.float16,
    "bf16-mixed": torch.bfloat16,
    "32-true": torch.float32,
    "32": torch.float32,
}


def check_options(module: Any, trainer: Any) -> None:
    """Raises InputError for an option that can't be.

    Args:
        module: the QLoRAModule, with its options as attributes.
        trainer: that it will be run by.
    """
    precision = str(trainer.precision)
    if precision not in DTYPES:
        raise InputError(
            f"--trainer.precision {precision}: the adapters are kept in float32: use bf16-mixed, 16-mixed or 32"
        )
    if trainer.world_size > 1 and not isinstance(trainer.strategy, OneMessage):
        raise InputError(
            f"--trainer.strategy {type(trainer.strategy).__name__}: each process holds a 4-bit base of its own: use "
            "auto or ddp; what shards a base (fsdp, deepspeed) is not built"
        )
    if trainer.gradient_clip_val or trainer.accumulate_grad_batches != 1:
        raise InputError(
            "--trainer.gradient_clip_val, --trainer.accumulate_grad_batches: a batch is a whole optimizer step "
            "here: use --model.max_grad_norm, --data.batch_size and --data.micro_batch_tokens"
        )
    for option, low in (
        ("learning_rate", 0.0),
        ("weight_decay", 0.0),
        ("max_grad_norm", 0.0),
        ("max_new_tokens", 1),
        ("max_bad_steps", 1),
    ):
        value = getattr(module, option)
        if not (math.isfinite(value) and value >= low):
            raise InputError(f"--model.{option} is {value}: it has to be at least {low:g}")
    if not 0 <= module.target_risk <= 1:
        raise InputError(f"--model.target_risk is {module.target_risk}: it is a share, 0 to 1")
    if not 0 <= module.warmup_ratio < 1:
        raise InputError(f"--model.warmup_ratio is {module.warmup_ratio}: it has to be in [0, 1)")
