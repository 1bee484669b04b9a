"""A module, a datamodule and a Trainer as a user's own program builds them, on a small base and small files."""

from pathlib import Path
from typing import Any

import lightning
import torch
from harness import questions, write_rows

from medqlora.data import JSONLines
from medqlora.datamodule import PubMedQADataModule
from medqlora.models import LoRA, Transformers
from medqlora.models.adapters import trainable_state
from medqlora.module import QLoRAModule


class Own:
    """A small base and small files, and what a user makes of them."""

    def __init__(self, base: Path, folder: Path) -> None:
        self.base, self.folder = base, folder
        folder.mkdir(exist_ok=True)
        self.files = {
            name: str(write_rows(folder / f"{name}.jsonl", questions(count, start)))
            for name, count, start in (("train", 12, 0), ("dev", 6, 1000), ("test", 9, 2000))
        }

    def module(self, **options: Any) -> QLoRAModule:
        backend = Transformers(str(self.base), gradient_checkpointing=False)
        chosen = {"learning_rate": 5e-3, "max_new_tokens": 4, **options}
        return QLoRAModule(backend, lora=LoRA(r=4, alpha=8), **chosen)

    def data(self, **options: Any) -> PubMedQADataModule:
        chosen: dict[str, Any] = {
            "batch_size": 4,
            "micro_batch_tokens": 400,
            "max_prompt_tokens": 256,
            **options,
        }
        return PubMedQADataModule(source=JSONLines(**self.files), **chosen)  # type: ignore[arg-type]

    def trainer(self, **options: Any) -> lightning.Trainer:
        """Lightning's defaults but for the run's length, its folder and what it prints."""
        chosen = {"max_epochs": 1, "enable_progress_bar": False, "default_root_dir": self.folder, **options}
        return lightning.Trainer(accelerator="cpu", **chosen)


def weights(module: QLoRAModule) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainable_state(module.model).items()}


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
