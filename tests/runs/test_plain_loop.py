"""The examples of the Python API: as the documentation shows them; and the training step without Lightning."""

import re
import runpy
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from medqlora.data import SyntheticTrials
from medqlora.datamodule import PubMedQADataModule
from medqlora.models import LoRA, Transformers
from medqlora.models.adapters import trainable_state
from medqlora.module import QLoRAModule

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "plain_loop.py"


class Losses(Callback):
    """Keeps the loss of each step."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: Any
    ) -> None:
        self.values.append(float(outputs["loss"]))


def test_the_plain_loop_takes_the_steps_of_fit(
    tiny_bases: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def backend() -> Transformers:
        return Transformers(str(tiny_bases["llama"]), gradient_checkpointing=False)

    monkeypatch.setattr("medqlora.models.TinyLlama", backend, raising=False)
    loop = runpy.run_path(str(EXAMPLE))
    shown = [float(value) for value in re.findall(r"^loss (\S+)$", capsys.readouterr().out, re.MULTILINE)]

    module, losses = QLoRAModule(backend(), lora=LoRA(r=16, alpha=32), learning_rate=3e-3), Losses()
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        callbacks=[losses],
        default_root_dir=tmp_path,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    trainer.fit(module, datamodule=PubMedQADataModule(SyntheticTrials(train=160, dev=32, test=40)))
    assert len(shown) == 20
    assert losses.values == pytest.approx(shown, abs=1e-5)
    ours = trainable_state(loop["model"])
    for name, value in trainable_state(module.model).items():
        assert torch.equal(ours[name], value), name


@pytest.mark.parametrize("name", ["own_trainer", "plain_loop"])
def test_the_documentation_shows_the_example_as_it_stands(name: str) -> None:
    _, code = (ROOT / "examples" / f"{name}.py").read_text(encoding="utf-8").split('"""\n\n', 1)
    assert f"```python\n{code}```\n" in (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
