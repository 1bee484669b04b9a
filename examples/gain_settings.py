"""Sizes and rates of the recipes whose gains are measured, and what a recipe is."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Row = dict[str, object]
Runner = Callable[[Path, int], list[Row]]


@dataclass(frozen=True)
class Settings:
    """Sizes and rates of all recipes; see `measured_gains.py` for how they were chosen.

    Attributes:
        difficulty: of the trials.
        rate: highest learning rate; of the recipes about the rate, those say.
        dev, test: questions to validate and to test on.
        labelled, labelled_epochs: of the stages' target set.
        more_labelled, more_labelled_epochs: of the larger target set, with which one stage does better.
        artificial, artificial_epochs, wrong: of the first stage; the share of its labels that is wrong.
        second_rate: highest learning rate of the second stage.
        rare, rare_epochs, rare_dev, rare_test, rare_difficulty: of the balance recipes.
        rare_maybe: share of maybe in each of their sets.
        folded, folded_epochs, folded_test: development questions of the folds, nine tenths of which train a fold, and
            the questions that test them.
        trials: of `medqlora tune`.
        searched, searched_epochs: training questions and epochs of the search and of the averages.
    """

    difficulty: int = 3
    rate: float = 1.5e-3
    dev: int = 100
    test: int = 400
    labelled: int = 300
    labelled_epochs: int = 12
    more_labelled: int = 700
    more_labelled_epochs: int = 8
    artificial: int = 2400
    artificial_epochs: int = 2
    wrong: float = 0.2
    second_rate: float = 1e-3
    rare: int = 450
    rare_epochs: int = 8
    rare_dev: int = 200
    rare_test: int = 1000
    rare_difficulty: int = 2
    rare_maybe: float = 0.05
    folded: int = 500
    folded_epochs: int = 8
    folded_test: int = 1000
    trials: int = 8
    searched: int = 600
    searched_epochs: int = 5


@dataclass(frozen=True)
class Recipe:
    """One training and its test.

    Attributes:
        family: the gain that it is about.
        name: what is trained; a job may give rows of further names.
        run: trains and tests in a folder: an empty one, or that of its own interrupted run where it `resumes`.
        cores: that it uses at once.
        resumes: whether it goes on with what an interrupted run has trained.
    """

    family: str
    name: str
    run: Runner
    cores: int = 1
    resumes: bool = False
