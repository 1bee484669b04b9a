"""The recipes of the stages: a large set with wrong labels first, and then a small one; and each by itself."""

import random
from collections.abc import Callable
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import NamedTuple

from gain_runs import Options, configuration, fit_and_test, steps_of, trials, written
from gain_settings import Recipe, Settings

from medqlora.data import SyntheticTrials
from medqlora.records import YES_NO_MAYBE


class Target(NamedTuple):
    """A set of labelled questions, on which one stage is trained alone, or the last of two."""

    name: str
    questions: int
    epochs: int


def stages(settings: Settings) -> list[Recipe]:
    """The recipes of the two target sets, and what both are compared with."""
    labelled = Target("labelled", settings.labelled, settings.labelled_epochs)
    more = Target("more labelled", settings.more_labelled, settings.more_labelled_epochs)
    first = _steps_of_first(settings)
    steps = steps_of(labelled.questions, labelled.epochs)
    smoothed = _alone(settings, labelled, label_smoothing=0.1)
    return [
        *_with(settings, more),
        *_with(settings, labelled),
        _recipe("stages", "artificial alone", _in_stages(settings, labelled), first),
        _recipe("smoothing", "labelled alone, label smoothing 0.1", smoothed, steps),
    ]


def _with(settings: Settings, target: Target) -> list[Recipe]:
    """A large set with wrong labels first, and then the target: what stages are for."""
    name, epoch, first = target.name, steps_of(target.questions, 1), _steps_of_first(settings)
    longer = target._replace(epochs=target.epochs + ceil(first / epoch))
    second: Options = {"name": "labelled", "epochs": target.epochs, "learning_rate": settings.second_rate}
    both, alone = f"artificial, then {name}", f"{name} alone"
    return [
        _recipe("stages", both, _in_stages(settings, target, second), first + epoch * target.epochs),
        _recipe("stages", f"{alone}, as many steps", _alone(settings, longer), epoch * longer.epochs),
        _recipe("stages", alone, _alone(settings, target), epoch * target.epochs),
    ]


def _recipe(family: str, name: str, made: Callable[[Path, int], Options], steps: int) -> Recipe:
    return Recipe(family, name, fit_and_test(name, made, steps))


def _steps_of_first(settings: Settings) -> int:
    return steps_of(settings.artificial, settings.artificial_epochs)


def _alone(settings: Settings, target: Target, **data: object) -> Callable[[Path, int], Options]:
    """One stage: the target set."""

    def made(folder: Path, seed: int) -> Options:
        source = trials(target.questions, settings, seed)
        return configuration(settings, seed, target.epochs, {"source": source, **data})

    return made


def _in_stages(settings: Settings, target: Target, *later: Options) -> Callable[[Path, int], Options]:
    """The artificial set, then the later stages; validation and test are those of the target set."""

    def made(folder: Path, seed: int) -> Options:
        file = _artificial(folder, settings, seed)
        stage: Options = {
            "name": "artificial",
            "source": {"class_path": "medqlora.data.JSONLines", "init_args": file},
            "epochs": settings.artificial_epochs,
        }
        data: Options = {"source": trials(target.questions, settings, seed), "stages": [stage, *later]}
        return configuration(settings, seed, 1, {**data, "stage_schedule": "each"})

    return made


def _artificial(folder: Path, settings: Settings, seed: int) -> Options:
    """Options of a file with other trials of the same kind, some of whose labels are wrong."""
    rng = random.Random(f"{seed}/wrong labels")
    trials = SyntheticTrials(settings.artificial, 0, 1, seed + 500_000, settings.difficulty).read().train
    rationales = {record.answer: record.long_answer for record in trials}
    records = []
    for record in trials:
        if rng.random() < settings.wrong:
            answer = rng.choice([label for label in YES_NO_MAYBE if label != record.answer])
            record = replace(record, answer=answer, long_answer=rationales[answer])
        records.append(replace(record, id=f"artificial-{record.id}"))
    return {"train": written(folder / "artificial.jsonl", records), "dev_fraction": 0}
