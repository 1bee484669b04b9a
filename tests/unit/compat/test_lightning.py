"""The private parts of Lightning that this project uses are there, and do what their docstrings say."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.demos.boring_classes import BoringDataModule, BoringModel
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

from medqlora.compat import lightning as compat


class Asks(Callback):
    """Calls a function at a hook, and keeps its results."""

    def __init__(self, hook: str, function: Callable[[Trainer], object]) -> None:
        self.results: list[object] = []
        setattr(self, hook, lambda trainer, *args, **options: self.results.append(function(trainer)))


def trainer(*callbacks: Callback, **options: Any) -> Trainer:
    return Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
        **{
            "max_epochs": 1,
            "limit_train_batches": 4,
            "limit_val_batches": 1,
            "num_sanity_val_steps": 0,
            **options,
        },
    )


pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*to be the sampler"),
]


def test_a_validation_or_the_epochs_end_after_a_step_is_known_before_it_begins() -> None:
    asks = Asks("on_train_batch_end", compat.validation_or_epoch_end_follows)
    trainer(asks, val_check_interval=2, limit_train_batches=5).fit(BoringModel())
    assert asks.results == [False, True, False, True, True]


def test_the_source_of_the_loaders_is_the_calls_own() -> None:
    asks = Asks("on_fit_start", compat.data_source)
    first, model, data = trainer(asks), BoringModel(), BoringDataModule()
    first.fit(model, datamodule=data)
    first.fit(model)
    assert asks.results == [data, model]
    assert compat.datamodule_of(first) is data  # of the earlier call


def test_the_checkpoint_of_a_stage_is_known_in_its_setup(tmp_path: Path) -> None:
    asks = Asks("setup", lambda trainer: compat.checkpoint_to_restore())
    runs, model = trainer(asks), BoringModel()
    runs.fit(model)
    path = tmp_path / "a.ckpt"
    runs.save_checkpoint(path)
    runs.validate(model, ckpt_path=path, verbose=False)
    runs.validate(model, verbose=False)
    assert asks.results == [None, str(path), None]
    assert compat.checkpoint_to_restore() is None


def test_attributes_that_connectors_set() -> None:
    callback = Callback()
    runs = trainer(callback, log_every_n_steps=7, overfit_batches=3)
    assert callback in compat.callbacks_of(runs)
    assert (compat.log_every_n_steps(runs), compat.overfit_batches(runs)) == (7, 3)
    assert compat.fast_dev_run(trainer(fast_dev_run=True))
    assert not compat.fast_dev_run(runs)
    assert compat.datamodule_of(runs) is None
    assert isinstance(compat.cluster_environment(runs), LightningEnvironment)


def test_evaluation_loops_leave_inference_mode() -> None:
    asks = Asks("on_validation_batch_end", lambda trainer: torch.is_inference_mode_enabled())
    runs = trainer(asks)
    runs.validate(BoringModel(), verbose=False)
    compat.use_no_inference_mode(runs)
    runs.validate(BoringModel(), verbose=False)
    runs.fit(BoringModel())
    assert asks.results == [True, False, False]


def test_the_message_about_a_signal_before_each_step_is_a_method_of_the_loop() -> None:
    runs = trainer()
    assert callable(runs.fit_loop.epoch_loop._broadcast_sigterm_tensor)
    compat.no_sigterm_broadcast(runs)
    assert runs.fit_loop.epoch_loop._broadcast_sigterm_tensor() is None
    assert callable(DDPStrategy._setup_model)
    model = torch.nn.Linear(1, 1)
    assert compat.UnwrappedDDP()._setup_model(model) is model


def test_started_processes_are_killed() -> None:
    launcher = _SubprocessScriptLauncher(LightningEnvironment(), num_processes=2, num_nodes=1)
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    launcher.procs = [process]
    compat.kill_started_processes(SimpleNamespace(launcher=launcher), forget=True)
    assert process.wait(240) < 0
    assert launcher.procs == []
    compat.kill_started_processes(SimpleNamespace(launcher=None))


class Manual(BoringModel):
    """Steps through the driver, and counts its hooks."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.hooks = 0

    def training_step(self, batch: Any, batch_idx: int) -> None:
        driver = compat.LightningDriver(self)
        optimizer = self.trainer.optimizers[0]
        optimizer.zero_grad()
        with driver.forward():
            driver.backward(self.step(batch))
        assert driver.update(optimizer, lambda: None) is False

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        self.hooks += 1


def test_a_step_of_the_driver_counts_and_calls_the_hook_before_the_update() -> None:
    runs, model = trainer(), Manual()
    before = model.layer.weight.detach().clone()
    runs.fit(model)
    assert runs.global_step == model.hooks == 4
    assert not torch.equal(model.layer.weight, before)
    assert isinstance(model, LightningModule)
