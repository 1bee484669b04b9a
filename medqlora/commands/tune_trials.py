"""The trials of a search: Optuna's study in SQLite, and a fit for each trial in this process."""

import gc
import json
import math
from typing import TYPE_CHECKING

import optuna
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from optuna.trial import FrozenTrial, TrialState

from medqlora.artifacts.validated import LOWER_IS_BETTER
from medqlora.commands.run import Run
from medqlora.commands.tune_options import STUDY, Search
from medqlora.config.check import check_options
from medqlora.config.space import Choices, Dimension, Value, word
from medqlora.errors import InputError
from medqlora.utils.console import say

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

_NAME, _DEFINITION = "medqlora", "definition"
#: mark of a trial that a killed process left, and of one too many of several workers: neither counts
_DROPPED = "dropped"
_MORE_IS_BETTER = "maximize"


class Reported(Callback):
    """Tells a trial the score of each validation, and ends the fit where it is to be pruned.

    Attributes:
        values: the scores so far.
        pruned: whether the trial was ended.
    """

    def __init__(self, trial: optuna.Trial, metric: str) -> None:
        self.values: list[float] = []
        self.pruned = False
        self._trial = trial
        self._metric = metric

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or self._metric not in trainer.callback_metrics:
            return
        value = float(trainer.callback_metrics[self._metric])
        if math.isfinite(value):
            self.values.append(value)
            self._trial.report(value, len(self.values))
            if self._trial.should_prune():
                self.pruned = trainer.should_stop = True


class TrialRun(Run):
    """A fit that tells its validations to a trial."""

    def __init__(self, words: list[str], reported: Reported) -> None:
        super().__init__(words, "tune")  # a trial says nothing of a next step: the search does
        self._reported = reported

    def start(self) -> None:
        super().start()
        self.trainer.callbacks.append(self._reported)  # type: ignore[attr-defined]


def open_study(search: Search, *, first: bool = False) -> optuna.Study:
    """The study in the search's folder, made where there is none.

    Args:
        search: what it is for.
        first: no other process works on it: a trial that still runs was killed, and its values are tried again.

    Raises:
        InputError: the folder holds the study of another search, or a damaged one.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = (search.out / STUDY).absolute()
    lower = search.metric in LOWER_IS_BETTER
    try:
        study = optuna.create_study(
            storage=f"sqlite:///{path}",
            study_name=_NAME,
            direction="minimize" if lower else "maximize",
            pruner=optuna.pruners.MedianPruner() if search.prune == "median" else optuna.pruners.NopPruner(),
            load_if_exists=True,
        )
    except Exception as error:  # whatever the database's driver raises
        raise InputError(
            f"--out {search.out}: {STUDY} can't be read ({error}): give another folder"
        ) from error
    definition = search.definition()
    before = study.user_attrs.get(_DEFINITION)
    if before is None:
        study.set_user_attr(_DEFINITION, definition)
    elif before != definition:
        changed = next(name for name in definition if before.get(name) != definition[name])
        raise InputError(
            f"--out {search.out}: it holds a search with another value of {changed}, whose trials can't be compared: "
            "give another folder"
        )
    if first:
        _restart_killed(study)
    return study


def _restart_killed(study: optuna.Study) -> None:
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.enqueue_trial(trial.params)
        _drop(study, trial.number)


def _drop(study: optuna.Study, number: int) -> None:
    """Ends a trial so that it does not count."""
    study.tell(number, state=TrialState.FAIL)
    dropped = [*study.user_attrs.get(_DROPPED, ()), number]
    study.set_user_attr(_DROPPED, sorted(set(dropped)))


def done_trials(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that count: finished, pruned or failed."""
    dropped = set(study.user_attrs.get(_DROPPED, ()))
    states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
    return [trial for trial in study.get_trials(deepcopy=False, states=states) if trial.number not in dropped]


def best_trial(study: optuna.Study) -> FrozenTrial | None:
    """The finished trial with the best value; None without one."""
    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    sign = 1 if study.direction.name.lower() == _MORE_IS_BETTER else -1
    return max(finished, key=lambda trial: (sign * float(trial.value or 0.0), -trial.number), default=None)


def distributions(space: "dict[str, Dimension]") -> "dict[str, BaseDistribution]":
    """The space as Optuna has it."""
    found: dict[str, BaseDistribution] = {}
    for name, one in space.items():
        if isinstance(one, Choices):
            found[name] = optuna.distributions.CategoricalDistribution(one.values)
        elif one.whole:
            step = int(one.step or 1)
            found[name] = optuna.distributions.IntDistribution(int(one.low), int(one.high), one.log, step)
        else:
            found[name] = optuna.distributions.FloatDistribution(one.low, one.high, one.log, one.step)
    return found


def run_trials(search: Search, study: optuna.Study, worker: int = 0) -> None:
    """Runs trials until the search has all of them.

    Args:
        search: what to try.
        study: where the trials are kept.
        worker: number of this process among several.

    Raises:
        InputError: the first trial was refused: the options are wrong for every one.
    """
    spread = distributions(dict(search.space))
    while len(done_trials(study)) < search.trials:
        # the number of trials makes a search that goes on draw other values than it began with
        seed = search.seed + 1000 * worker + len(study.get_trials(deepcopy=False))
        study.sampler = optuna.samplers.TPESampler(seed=seed)
        trial = study.ask(fixed_distributions=spread)
        dropped = study.user_attrs.get(_DROPPED, ())
        if trial.number - sum(number < trial.number for number in dropped) >= search.trials:
            _drop(study, trial.number)  # other workers run what is left
            return
        _run_trial(search, study, trial)


def _run_trial(search: Search, study: optuna.Study, trial: optuna.Trial) -> None:
    reported = Reported(trial, search.metric)
    words = trial_words(search, trial.number, trial.params)
    shown = ", ".join(f"{name} {json.dumps(value)}" for name, value in trial.params.items())
    say(f"Trial {trial.number}: {shown}")
    try:
        check_options("fit", words[1:], files=True)
        TrialRun(words, reported).execute()
    except InputError as error:
        study.tell(trial, state=TrialState.FAIL)
        if not any(one.state != TrialState.FAIL for one in done_trials(study)):
            raise
        say(f"Trial {trial.number} was refused: {error}")
    except (torch.OutOfMemoryError, FloatingPointError) as error:
        study.tell(trial, state=TrialState.FAIL)
        say(f"Trial {trial.number} failed: {error}")
    else:
        _told(search, study, trial, reported)
    finally:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _told(search: Search, study: optuna.Study, trial: optuna.Trial, reported: Reported) -> None:
    """Gives the study the result of a trial that ran."""
    if not reported.values:
        study.tell(trial, state=TrialState.FAIL)
        raise InputError(
            f"--metric {search.metric}: the validation gave no such score: name one that `fit` logs, and see that "
            "the source has validation questions"
        )
    if reported.pruned:
        study.tell(trial, state=TrialState.PRUNED)
        say(f"Trial {trial.number}: pruned at {search.metric} {reported.values[-1]:.4f}")
        return
    lower = search.metric in LOWER_IS_BETTER
    value = min(reported.values) if lower else max(reported.values)
    study.tell(trial, value)
    best = best_trial(study)
    assert best is not None
    say(
        f"Trial {trial.number}: {search.metric} {value:.4f} (best {best.value:.4f}, trial {best.number}; "
        f"{len(done_trials(study))} of {search.trials} done)"
    )


def trial_words(search: Search, number: int, values: "dict[str, Value]") -> list[str]:
    """The words of a trial's fit."""
    return [
        "fit",
        *search.words,
        *(word(name, value) for name, value in values.items()),
        "--trainer.devices=1",
        f"--checkpoint.monitor={search.metric}",
        f"--trainer.default_root_dir={search.folder(number)}",
    ]
