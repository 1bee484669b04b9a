"""Options of Lightning's that meet ours: each does what it says, or is refused before a weight is loaded."""

import re
from pathlib import Path
from typing import Any

import pytest
from harness import options, refused, run
from lightning.pytorch.loggers import Logger
from tensorboard_events import logged

from medqlora.artifacts.run_folder import RunFolder
from medqlora.callbacks import AdapterCheckpoint, StepProgress, saver_of
from medqlora.errors import InputError


class Elsewhere(Logger):
    """A logger that keeps its figures out of any folder, as those of web services do."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    @property
    def name(self) -> str:
        return "elsewhere"

    @property
    def version(self) -> str:
        return "1"

    @property
    def save_dir(self) -> str:
        return "."

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.names |= set(metrics)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None: ...


class Uninstalled(Elsewhere):
    """A logger whose package is not there, as WandbLogger without wandb."""

    def __init__(self) -> None:
        raise ModuleNotFoundError("Requirement 'wards>=2' not met")


@pytest.fixture
def words(tiny_bases: dict[str, Path], tmp_path: Path) -> list[str]:
    return [*options(tiny_bases["llama"], tmp_path, train=8), "--trainer.max_epochs=1"]


def test_a_logger_without_a_folder_of_its_own_gets_the_figures_and_the_run_keeps_its_folder(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").touch()
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    theirs = f"--trainer.logger={__name__}.Elsewhere"
    folders = []
    for _ in range(2):
        cli = run("fit", [*words, "--trainer.log_every_n_steps=1", theirs])
        (other,) = (one for one in cli.trainer.loggers if isinstance(one, Elsewhere))
        assert {"train/loss", "val/accuracy"} <= other.names
        folders.append(Path(cli.trainer.log_dir))
    assert [folder.name for folder in folders] == ["version_0", "version_1"]
    for folder in folders:
        assert len(logged(folder, "train/loss")) == 2
        assert (folder / "adapter" / "adapter_model.safetensors").is_file()
        assert (RunFolder(folder).read_record() or {})["state"] == "finished"
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_a_tensorboard_logger_of_another_name_has_a_folder_for_each_run(
    words: list[str], tmp_path: Path
) -> None:
    theirs = ["--trainer.logger=TensorBoardLogger", f"--trainer.logger.save_dir={tmp_path / 'new' / 'tb'}"]
    for number in range(2):
        cli = run("fit", [*words, *theirs, "--trainer.logger.name=mine"])
        folder = tmp_path / "new" / "tb" / "mine" / f"version_{number}"
        assert Path(cli.trainer.log_dir) == folder
        assert (folder / "adapter" / "medqlora.json").is_file()
    assert sorted(path.name for path in (tmp_path / "new" / "tb").iterdir()) == ["mine"]
    assert not (tmp_path / "lightning_logs").exists()


def test_a_bar_that_is_switched_off_shows_nothing(
    words: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    cli = run("fit", [*words, "--progress.refresh_rate=1", "--trainer.enable_progress_bar=false"])
    assert next(one for one in cli.trainer.callbacks if isinstance(one, StepProgress)).is_disabled
    assert "Training" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("monitor", "mode"),
    [("val/loss", "min"), ("val/unparsed_fraction", "min"), ("val/accuracy", "max"), ("val/macro_f1", "max")],
)
def test_the_best_is_the_lowest_where_lower_is_better(monitor: str, mode: str) -> None:
    assert AdapterCheckpoint(monitor=monitor).mode == mode
    assert AdapterCheckpoint(monitor=monitor, mode="max").mode == "max"


@pytest.mark.parametrize(
    ("labelled", "written", "scores"),
    [
        (True, True, "accuracy ece likelihood_accuracy likelihood_macro_f1 loss macro_f1 unparsed_fraction"),
        (True, False, "accuracy ece likelihood_accuracy likelihood_macro_f1 loss macro_f1"),
        (False, True, "accuracy loss rouge_l token_f1"),
        (False, False, "loss"),
    ],
)
def test_each_score_that_a_validation_gives_can_be_monitored_and_no_other(
    labelled: bool,
    written: bool,
    scores: str,
    words: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [*words, f"--model.generate={str(written).lower()}"]
    if not labelled:
        words.append("--data.source.labels=[]")
    cli = run("fit", [*words, "--checkpoint.monitor=val/loss", "--checkpoint.save_top_k=-1"])
    given = {name for name in cli.trainer.callback_metrics if name.startswith("val/")}
    assert given == {f"val/{name}" for name in scores.split()}
    assert saver_of(cli.trainer).best_model_score == cli.trainer.callback_metrics["val/loss"]
    said = refused(capsys, "fit", *words, "--checkpoint.monitor=val/acc", reads=True)
    assert "--checkpoint.monitor val/acc: this validation gives val/" in said
    assert {name.strip(" :") for name in said.split("gives ")[1].split(": name")[0].split(",")} == given
    if not labelled and not written:
        assert "--checkpoint.monitor val/accuracy" in refused(capsys, "fit", *words, reads=True)


def test_free_answers_are_not_tested_without_being_written(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*words, "--data.source.labels=[]", "--model.generate=false", "--model.adapter=none"]
    said = refused(capsys, "test", *words, reads=True)
    assert "--model.generate false: " in said
    assert "test.jsonl:1 (id q2000) has a free answer" in said


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--checkpoint.save_top_k=-2"], "--checkpoint.save_top_k -2: it has to be at least -1"),
        (
            ["--checkpoint.every_n_train_steps=0"],
            "--checkpoint.every_n_train_steps 0: it has to be at least 1",
        ),
        (["--model.adapter=ward"], "--model.adapter ward: `fit` trains new adapters"),
        (
            [f"--trainer.logger={__name__}.Uninstalled"],
            f"--trainer.logger {__name__}.Uninstalled: Requirement 'wards>=2' not met",
        ),
        (["--trainer.max_time=soon"], "--trainer.max_time soon: "),
        (["--trainer.accelerator=tpu"], "--trainer.accelerator tpu"),
        (["--trainer.logger=false"], "--trainer.logger false: a run's folder is where its logger writes"),
        (["--trainer.enable_checkpointing=false"], "--trainer.enable_checkpointing false: what a fit leaves"),
        (["--trainer.barebones=true"], "--trainer.barebones true: it leaves out what a run is for"),
        (
            ["--model.optimizer=torch.optim.LBFGS"],
            "--model.optimizer torch.optim.lbfgs.LBFGS: it evaluates the loss again",
        ),
    ],
)
def test_what_a_run_cannot_do_without_is_said_before_anything_is_loaded(
    more: list[str], said: str, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(capsys, "fit", *words, *more)
    assert said in line
    assert not (tmp_path / "lightning_logs").exists()


def test_checkpoints_that_cannot_be_kept_end_a_run_before_its_model_is_loaded(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(capsys, "fit", *words, "--checkpoint.dirpath=/dev/null/x", reads=True)
    assert "--checkpoint.dirpath /dev/null/x: it can't be made" in line
    assert not (tmp_path / "lightning_logs").exists()


@pytest.mark.parametrize(
    ("verb", "limit"), [("fit", "limit_val_batches=0.5"), ("test", "limit_test_batches=3")]
)
def test_a_score_is_never_that_of_the_longest_or_shortest_questions(
    verb: str, limit: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert "questions are sorted by length" in refused(capsys, verb, *words, f"--trainer.{limit}")


def test_a_try_of_one_step_may_leave_the_logger_out(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    cli = run("fit", [*words, "--trainer.fast_dev_run=true", "--trainer.logger=false"])
    assert cli.trainer.global_step == 1
    said = capsys.readouterr().out
    assert said.endswith("(--trainer.fast_dev_run) came to its end; it leaves no files\n")
    assert "Next:" not in said


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("trainer.max_epochs", "-5", "it has to be at least -1"),
        ("trainer.log_every_n_steps", "0", "it has to be at least 1"),
        ("trainer.check_val_every_n_epoch", "0", "it has to be at least 1"),
        ("trainer.num_nodes", "0", "it has to be at least 1"),
        ("trainer.val_check_interval", "0", "it has to be above 0"),
        ("trainer.val_check_interval", "2.5", "it has to be in [0.0, 1.0] or an int"),
        ("trainer.val_check_interval", "100", "use at most "),  # an epoch has fewer steps
        (
            "trainer.limit_train_batches",
            "0.1",
            "an epoch has 6 steps, and that share is less than one: use at",
        ),
        ("trainer.limit_train_batches", "-1", "it has to be in [0.0, 1.0] or an int"),
        ("trainer.fast_dev_run", "-1", "It should be >= 0"),
        ("trainer.devices", "-3", "not on this machine"),
        ("seed_everything", "-1", "it has to be from 0 to 4294967295"),
        ("seed_everything", "4294967296", "it has to be from 0 to 4294967295"),
        ("data.seed", str(2**63), "it has to be below 2**63"),
    ],
)
def test_a_number_that_cannot_be_counted_with_is_wrong_input(
    tiny_bases: dict[str, Path], tmp_path: Path, option: str, value: str, said: str
) -> None:
    with pytest.raises(InputError, match=re.escape(said)) as error:
        run("fit", [*options(tiny_bases["llama"], tmp_path), f"--{option}={value}"])
    assert f"--{option}" in str(error.value)
    assert value in str(error.value)
