"""Lightning's own callbacks and options: each does what its users expect, or is refused before a model is loaded."""

import csv
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import adapter_weights, options, refused, run
from lightning.pytorch.callbacks import (
    BackboneFinetuning,
    BasePredictionWriter,
    BatchSizeFinder,
    Callback,
    DeviceStatsMonitor,
    EarlyStopping,
    EMAWeightAveraging,
    GradientAccumulationScheduler,
    LambdaCallback,
    LearningRateFinder,
    LearningRateMonitor,
    ModelCheckpoint,
    ModelPruning,
    OnExceptionCheckpoint,
    ProgressBar,
    SpikeDetection,
    StochasticWeightAveraging,
    ThroughputMonitor,
    Timer,
    WeightAveraging,
)
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.tuner import Tuner
from own_programs import Own, equal, weights
from tensorboard_events import logged

from medqlora.callbacks.throughput import Throughput
from medqlora.commands.trainer_options import environment_plugins, slurm_without_srun
from medqlora.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore:.*", category=UserWarning)
NO_FILES: dict[str, Any] = {"logger": False, "enable_checkpointing": False}


@pytest.fixture
def own(tiny_bases: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Own:
    monkeypatch.chdir(tmp_path)
    return Own(tiny_bases["llama"], tmp_path)


class OwnAveraging(WeightAveraging):
    """A subclass is what it is derived from."""


REFUSED: list[tuple[Callback, str]] = [
    (StochasticWeightAveraging(1e-2), "averaged weights"),
    (EMAWeightAveraging(), "averaged weights"),
    (OwnAveraging(), "averaged weights"),
    (BatchSizeFinder(), "--data.micro_batch_tokens auto"),
    (LearningRateFinder(), "--model.learning_rate"),
    (GradientAccumulationScheduler({0: 2}), "--data.batch_size"),
    (ModelPruning("l1_unstructured"), "--model.lora.r"),
    (BackboneFinetuning(), "--model.lora.target_modules"),
    (EarlyStopping("val_loss"), "the validation gives val/accuracy"),
    (ModelCheckpoint(monitor="val_acc"), "the validation gives val/accuracy"),
]


@pytest.mark.parametrize(("callback", "instead"), REFUSED, ids=lambda one: type(one).__name__)
def test_what_would_change_the_reported_weights_is_refused(
    own: Own, callback: Callback, instead: str
) -> None:
    module = own.module()
    with pytest.raises(InputError) as error:
        own.trainer(logger=False, callbacks=[callback]).fit(module, datamodule=own.data())
    assert str(error.value).startswith(f"--trainer.callbacks {type(callback).__name__}")
    assert instead in str(error.value)
    assert module.model is None


@pytest.mark.parametrize(
    ("given", "instead"),
    [
        ({"overfit_batches": 1}, "--data.train_samples"),
        ({"overfit_batches": 0.5}, "--data.train_samples"),
        ({"limit_val_batches": 1}, "questions are sorted by length"),
        ({"limit_val_batches": 0.5}, "questions are sorted by length"),
        ({"limit_test_batches": 2}, "questions are sorted by length"),
        ({"gradient_clip_val": 1.0}, "--model.max_grad_norm"),
        ({"accumulate_grad_batches": 2}, "--data.batch_size"),
    ],
    ids=str,
)
def test_an_option_that_would_change_what_is_reported_is_refused(
    own: Own,
    given: dict[str, Any],
    instead: str,
) -> None:
    module = own.module()
    with pytest.raises(InputError) as error:
        own.trainer(**NO_FILES, **given).fit(module, datamodule=own.data())
    assert f"--trainer.{next(iter(given))}" in str(error.value)
    assert instead in str(error.value)
    assert module.model is None


@pytest.mark.parametrize("tune", ["lr_find", "scale_batch_size"])
def test_the_tuner_is_refused(own: Own, tune: str) -> None:
    module, trainer = own.module(), own.trainer(**NO_FILES)
    with pytest.raises(InputError, match=r"--model.learning_rate|--data.micro_batch_tokens auto"):
        getattr(Tuner(trainer), tune)(module, datamodule=own.data())
    assert module.model is None


def test_a_score_of_the_users_own_may_be_monitored(own: Own) -> None:
    log = LambdaCallback(on_validation_epoch_end=lambda trainer, module: module.log("mine", 1.0))
    trainer = own.trainer(
        logger=False,
        callbacks=[log, EarlyStopping("mine")],
        limit_train_batches=1,
        enable_checkpointing=False,
    )
    trainer.fit(own.module(generate=False), datamodule=own.data())
    assert trainer.global_step == 1


def test_a_fit_that_a_score_has_stopped_says_so(own: Own, caplog: pytest.LogCaptureFixture) -> None:
    log = LambdaCallback(on_validation_epoch_end=lambda trainer, module: module.log("mine", 1.0))
    trainer = own.trainer(
        logger=False,
        callbacks=[log, EarlyStopping("mine", patience=1), Throughput()],
        limit_train_batches=1,
        max_epochs=4,
        enable_checkpointing=False,
    )
    trainer.fit(own.module(generate=False), datamodule=own.data())
    assert trainer.global_step == 2
    (said,) = [one for one in caplog.messages if one.startswith("Stopped early")]
    assert said.startswith("Stopped early, in epoch 2 of 4: Monitored metric mine did not improve")
    assert "Signaling" not in said


class Writer(BasePredictionWriter):
    """Takes what `predict` gives."""

    def __init__(self) -> None:
        super().__init__("batch_and_epoch")
        self.batches: list[Any] = []
        self.epoch: list[Any] = []

    def write_on_batch_end(self, trainer: Any, pl_module: Any, prediction: Any, *args: Any) -> None:
        self.batches.append(prediction)

    def write_on_epoch_end(self, trainer: Any, pl_module: Any, predictions: Any, *args: Any) -> None:
        self.epoch += predictions


def test_callbacks_that_watch_change_nothing_and_see_the_run(own: Own) -> None:
    losses: list[float] = []
    writer = Writer()
    watching = [
        LearningRateMonitor("step"),
        DeviceStatsMonitor(cpu_stats=True),
        ThroughputMonitor(batch_size_fn=lambda batch: len(batch.ids)),
        OnExceptionCheckpoint(own.folder / "failed"),
        SpikeDetection(warmup=1, rtol=10.0),
        Timer("00:01:00:00"),
        EarlyStopping("val/loss"),
        LambdaCallback(on_train_batch_end=lambda t, m, outputs, b, i: losses.append(float(outputs["loss"]))),
        writer,
    ]
    plain, module = own.module(), own.module()
    own.trainer(**NO_FILES).fit(plain, datamodule=own.data())
    trainer = own.trainer(callbacks=watching, logger=CSVLogger(own.folder), log_every_n_steps=1)
    data = own.data()
    trainer.fit(module, datamodule=data)
    assert equal(weights(plain), weights(module))
    rows = list(csv.DictReader((Path(str(trainer.log_dir)) / "metrics.csv").open()))
    rates = [float(row["lr-FlatOptimizer"]) for row in rows if row.get("lr-FlatOptimizer")]
    assert len(rates) == 3
    assert rates == sorted(rates, reverse=True)
    logged_losses = [float(row["train/loss"]) for row in rows if row.get("train/loss")]
    assert losses == pytest.approx(logged_losses, rel=1e-5)
    assert any(name.startswith("DeviceStatsMonitor.") for name in rows[0])
    trainer.predict(module, datamodule=data)
    assert sum(map(len, writer.batches)) == sum(map(len, writer.epoch)) == 9


def test_options_that_watch_or_repeat_change_nothing_of_what_is_learned(own: Own) -> None:
    watching: dict[str, Any] = {
        "reload_dataloaders_every_n_epochs": 1,
        "deterministic": True,
        "benchmark": True,
        "detect_anomaly": True,
        "profiler": "simple",
        "sync_batchnorm": True,
        "val_check_interval": 1,
    }
    found = []
    for more in ({}, watching):
        module = own.module(generate=False)
        trainer = own.trainer(**NO_FILES, max_epochs=2, **more)
        trainer.fit(module, datamodule=own.data(batch_size=6))
        assert trainer.global_step == 4
        found.append(weights(module))
    torch.use_deterministic_algorithms(False)
    assert equal(*found)


def test_predict_may_be_limited_to_the_first_questions(own: Own) -> None:
    data = own.data(micro_batch_tokens=100)
    trainer = own.trainer(**NO_FILES, limit_predict_batches=1)
    (answers,) = trainer.predict(own.module(adapter="none"), datamodule=data) or []
    assert 0 < len(answers) < 9
    with pytest.raises(InputError, match=r"limit_predict_batches 0\.01: the questions are"):
        own.trainer(**NO_FILES, limit_predict_batches=0.01).predict(
            own.module(adapter="none"), datamodule=own.data()
        )
    assert [one["id"] for one in answers] == [f"q{2000 + number}" for number in range(len(answers))]


# ---- the command line ------------------------------------------------------------------------------


@pytest.fixture
def words(tiny_bases: dict[str, Path], tmp_path: Path) -> list[str]:
    return [
        *options(tiny_bases["llama"], tmp_path, train=8),
        "--trainer.max_epochs=1",
        "--model.generate=false",
    ]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--trainer.overfit_batches=2"], "--trainer.overfit_batches 2"),
        (["--trainer.callbacks+=EMAWeightAveraging"], "--trainer.callbacks EMAWeightAveraging"),
        (
            ["--trainer.callbacks+=StochasticWeightAveraging", "--trainer.callbacks.swa_lrs=0.01"],
            "--trainer.callbacks StochasticWeightAveraging",
        ),
        (["--trainer.callbacks+=BatchSizeFinder"], "--trainer.callbacks BatchSizeFinder"),
        (["--trainer.callbacks+=LearningRateFinder"], "--trainer.callbacks LearningRateFinder"),
        # one of its defaults is a function, which a configuration may not name
        (["--trainer.callbacks+=BackboneFinetuning"], "--trainer.callbacks BackboneFinetuning"),
        (
            [
                "--trainer.callbacks+=EarlyStopping",
                "--trainer.callbacks.monitor=val/loss",
                "--trainer.callbacks.mode=up",
            ],
            "--trainer.callbacks lightning.pytorch.callbacks.EarlyStopping: `mode` can be",
        ),
        (
            ["--trainer.callbacks+=TQDMProgressBar", "--trainer.callbacks+=RichProgressBar"],
            "--trainer.callbacks TQDMProgressBar, RichProgressBar: a run has one progress bar: leave one out",
        ),
        (
            ["--trainer.callbacks+=RichProgressBar", "--trainer.enable_progress_bar=false"],
            "--trainer.enable_progress_bar false: --trainer.callbacks has RichProgressBar: leave one out",
        ),
    ],
)
def test_the_command_line_refuses_them_with_one_line(
    more: list[str], said: str, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refused(capsys, "fit", *words, *more)
    assert not list((tmp_path / "lightning_logs").glob("version_*"))


def test_a_bar_of_the_users_own_replaces_ours(words: list[str]) -> None:
    cli = run("fit", [*words, "--trainer.callbacks+=RichProgressBar", "--trainer.max_steps=1"])
    bars = [one for one in cli.trainer.callbacks if isinstance(one, ProgressBar)]
    assert [type(bar).__name__ for bar in bars] == ["RichProgressBar"]


def test_a_timer_is_written_to_the_runs_configuration(words: list[str]) -> None:
    timer = ["--trainer.callbacks+=Timer", "--trainer.callbacks.duration=00:01:00:00"]
    cli = run("fit", [*words, *timer, "--trainer.max_steps=1"])
    assert "interval: step" in (Path(str(cli.trainer.log_dir)) / "config.yaml").read_text()


def test_the_rate_is_monitored_to_the_exported_adapter(words: list[str]) -> None:
    cli = run("fit", [*words, "--trainer.callbacks+=LearningRateMonitor", "--trainer.log_every_n_steps=1"])
    folder = Path(cli.trainer.log_dir)
    ours, theirs = logged(folder, "train/learning_rate"), logged(folder, "lr-FlatOptimizer")
    assert [value for _, value in theirs] == pytest.approx([value for _, value in ours])
    assert (folder / "adapter" / "adapter_model.safetensors").is_file()
    assert adapter_weights(cli)


# ---- SLURM -----------------------------------------------------------------------------------------

JOB = {"SLURM_JOB_ID": "4711", "SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "4", "SLURM_NNODES": "1"}
RANK = {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}


@pytest.mark.parametrize(
    ("environment", "alone"),
    [
        ({}, False),
        ({**JOB}, True),  # salloc's shell
        ({**JOB, **RANK}, True),  # a batch script that calls Python without srun
        (
            {**JOB, **RANK, "SLURM_STEP_ID": "4294967290", "SLURM_STEP_NUM_TASKS": "1"},
            True,
        ),  # an interactive step
        ({**JOB, **RANK, "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "4"}, False),  # srun
        ({**JOB, **RANK, "SLURM_STEP_ID": "0"}, False),
        ({**JOB, **RANK, "SLURM_STEP_ID": "0", "JPY_PARENT_PID": "17"}, True),  # a notebook under srun
        ({**JOB, **RANK, "SLURM_NTASKS": "1"}, False),  # Lightning's requeue is wanted there
        ({**JOB, **RANK, "TORCHELASTIC_RUN_ID": "1"}, False),  # torchrun
    ],
)
def test_a_process_that_srun_did_not_start_waits_for_no_other(
    environment: dict[str, str], alone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert slurm_without_srun(environment) is alone
    for name in [name for name in os.environ if name.startswith(("SLURM_", "JPY_"))]:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert bool(environment_plugins([])) is alone


@pytest.mark.parametrize("name", ["jupyter", "spawner-jupyterhub", "interactive"])
def test_a_notebook_in_an_allocation_of_several_tasks_fits_in_one_process(
    name: str, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for key, value in {**JOB, **RANK, "SLURM_JOB_NAME": name, "JPY_PARENT_PID": "17"}.items():
        monkeypatch.setenv(key, value)
    cli = run("fit", [*words, "--trainer.max_steps=1", "--trainer.limit_val_batches=0"])
    assert (cli.trainer.world_size, cli.trainer.global_step) == (1, 1)
    assert "SLURM has reserved 4 tasks" in capsys.readouterr().out
