"""The right name for a mistyped option."""

import difflib
from collections.abc import Iterable

#: what other trainers call an option → its name here
OTHER_NAMES = {
    "lr": "model.learning_rate",
    "lr_scheduler_type": "model.lr_scheduler",
    "scheduler": "model.lr_scheduler",
    "rank": "model.lora.r",
    "lora_r": "model.lora.r",
    "lora_rank": "model.lora.r",
    "lora_alpha": "model.lora.alpha",
    "lora_dropout": "model.lora.dropout",
    "target_modules": "model.lora.target_modules",
    "epochs": "trainer.max_epochs",
    "num_epochs": "trainer.max_epochs",
    "num_train_epochs": "trainer.max_epochs",
    "output_dir": "trainer.default_root_dir",
    "model_name": "model.backend.base",
    "model_name_or_path": "model.backend.base",
    "base_model": "model.backend.base",
    "per_device_train_batch_size": "data.batch_size",
    "gradient_accumulation_steps": "data.batch_size",
    "max_seq_length": "data.max_prompt_tokens",
    "seed": "seed_everything",
    "dataset": "data.source",
    "resume": "ckpt_path",
    "resume_from_checkpoint": "ckpt_path",
}


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a message on an unknown name: the nearest known one, or where they are listed."""
    names = sorted(set(known))
    other = OTHER_NAMES.get(name.rsplit(".", 1)[-1].replace("-", "_").lower())
    if other in names:
        return f": did you mean '{other}'?"
    near = difflib.get_close_matches(name, names, 1, 0.6)
    if not near:  # a right name in the wrong group: model.rank for model.lora.r is far, lora.rank is not
        last = name.rsplit(".", 1)[-1]
        near = [candidate for candidate in names if candidate.rsplit(".", 1)[-1] == last][:1]
    return f": did you mean '{near[0]}'?" if near else " (see --help)"
