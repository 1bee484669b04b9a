"""`medqlora tune`: a search that goes on after a kill, keeps to the validation set, and leaves its best options."""

import json
import shlex
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from harness import options
from optuna.trial import TrialState

from medqlora.cli import main
from medqlora.commands.tune_options import Search
from medqlora.commands.tune_report import best_yaml
from medqlora.commands.tune_trials import Reported, done_trials, open_study
from medqlora.config.space import Choices, Interval

SPACE = "model.learning_rate: {low: 1.0e-4, high: 1.0e-2, log: true}\nmodel.lora.r: [2, 4]\n"


@pytest.fixture
def words(tiny_bases: dict[str, Path], tmp_path: Path) -> list[str]:
    space = tmp_path / "space.yaml"
    space.write_text(SPACE, encoding="utf-8")
    given = [one for one in options(tiny_bases["llama"], tmp_path, train=8, test=0) if "root_dir" not in one]
    own = [f"--space={space}", f"--out={tmp_path / 'search'}", "--metric=val/loss", "--prune=none"]
    return [*own, *given, "--trainer.max_epochs=1", "--model.generate=false", "--compare_base=false"]


def study_of(folder: Path) -> optuna.Study:
    return optuna.load_study(study_name="medqlora", storage=f"sqlite:///{folder / 'search' / 'study.db'}")


def test_a_search_goes_on_after_a_kill_and_leaves_its_best_options(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tune", *words, "--trials=2"]) == 0
    study = study_of(tmp_path)
    first = {trial.number: (trial.params, trial.value) for trial in study.trials}
    killed = study.ask()  # as a process leaves it that is killed within a trial
    killed.suggest_float("model.learning_rate", 1e-4, 1e-2, log=True)
    killed.suggest_categorical("model.lora.r", (2, 4))
    assert main(["tune", *words, "--trials=3"]) == 0
    trials = study_of(tmp_path).trials
    assert {number: (trials[number].params, trials[number].value) for number in first} == first
    assert trials[3].params == killed.params
    assert [trial.state for trial in trials] == [
        TrialState.COMPLETE,
        TrialState.COMPLETE,
        TrialState.FAIL,
        TrialState.COMPLETE,
    ]
    best = min(
        (trial for trial in trials if trial.value is not None), key=lambda trial: float(trial.value or 0)
    )
    chosen = yaml.safe_load((tmp_path / "search" / "best.yaml").read_text("utf-8"))["model"]
    assert chosen == {
        "learning_rate": best.params["model.learning_rate"],
        "lora": {"r": best.params["model.lora.r"]},
    }
    page = (tmp_path / "search" / "report.html").read_text("utf-8")
    assert "val/loss" in page
    assert page.count("data:image/svg") == 2  # importances, and the trials' values
    run = next((tmp_path / "search" / "trials" / f"{best.number:04d}").rglob("run.json"))
    assert json.loads(run.read_text())["state"] == "finished"
    shown = capsys.readouterr().out
    assert "3 of 3 done" in shown
    assert shown.count("Next:") == 2  # of the two searches, and of no trial
    assert "medqlora test" not in shown
    # another space is another search
    (tmp_path / "space.yaml").write_text("model.lora.r: [2, 4]\n", encoding="utf-8")
    assert main(["tune", *words, "--trials=4"]) == 2
    assert "another value of --space" in capsys.readouterr().err


def test_the_next_fit_has_the_other_options_of_the_search_and_none_of_the_space(tmp_path: Path) -> None:
    words = (
        "--config",
        "a b.yaml",
        "--data.source.train",
        "40",
        "--model.lora.r=2",
        "--trainer.max_epochs=1",
    )
    search = Search(words, {"model.lora.r": Choices((2, 4))}, 3, "val/macro_f1", tmp_path)
    assert shlex.split(search.next_fit()) == [
        *("medqlora", "fit", "--config", "a b.yaml", "--config", str(tmp_path / "best.yaml")),
        *("--data.source.train", "40", "--trainer.max_epochs=1"),
    ]


def test_the_next_fit_keeps_its_best_checkpoint_by_the_score_that_the_search_went_by(tmp_path: Path) -> None:
    search = Search(("--config=a.yaml",), {"model.lora.r": Choices((2, 4))}, 3, "val/macro_f1", tmp_path)
    spread = optuna.distributions.CategoricalDistribution((2, 4))
    best = optuna.trial.create_trial(
        params={"model.lora.r": 4}, distributions={"model.lora.r": spread}, value=0.5
    )
    assert "the score that chose these options" in best_yaml(search, best)
    assert yaml.safe_load(best_yaml(search, best)) == {
        "checkpoint": {"monitor": "val/macro_f1"},
        "model": {"lora": {"r": 4}},
    }


REFUSED = [
    (["--metric=test/accuracy"], "judged by validation alone"),
    (["--trials=0"], "--trials is 0"),
    (["--trainer.default_root_dir=x"], "each trial is a new run"),
    (["--model.lora.q=3"], "there is no such option"),
]


@pytest.mark.parametrize(("more", "told"), REFUSED)
def test_a_wrong_search_is_refused_before_anything_is_made(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], told: str
) -> None:
    assert main(["tune", *words, *more]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "search").exists()


@pytest.mark.parametrize(
    ("space", "told"),
    [
        ("data.seed: [1, 2]", "data.seed draws the questions of --data.validation_samples"),
        ("data.rationale: [none, after]", "--metric val/loss: data.rationale changes the texts"),
    ],
)
def test_trials_that_could_not_be_compared_are_refused(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], space: str, told: str
) -> None:
    (tmp_path / "space.yaml").write_text(f"{space}\n", encoding="utf-8")
    assert main(["tune", *words, "--data.validation_samples=2"]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "search").exists()


def test_a_trial_that_falls_behind_is_pruned(tmp_path: Path) -> None:
    search = Search((), {"model.lora.r": Choices((2, 4)), "x": Interval(0, 1)}, 9, "val/accuracy", tmp_path)
    study = open_study(search, first=True)
    for value in (0.6, 0.7, 0.8, 0.7, 0.6):
        trial = study.ask()
        trial.report(value, 1)
        study.tell(trial, value)

    class Seen:
        sanity_checking = should_stop = False
        callback_metrics: dict[str, Any] = {"val/accuracy": 0.3}  # noqa: RUF012

    reported, trainer = Reported(study.ask(), "val/accuracy"), Seen()
    reported.on_validation_end(trainer, None)  # type: ignore[arg-type]
    assert reported.pruned
    assert trainer.should_stop
    assert len(done_trials(study)) == 5
