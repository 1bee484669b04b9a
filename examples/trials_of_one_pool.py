"""A source outside the package: synthetic trials whose test questions are drawn as the development questions are.

`SyntheticTrials` gives each set names of its own, so its test questions are a little harder than held-out development
questions. Folds estimate the accuracy on questions of the same kind, as a split of one collection gives them.
"""

from dataclasses import replace

import numpy as np

from medqlora.data import SyntheticTrials
from medqlora.evaluation.contamination import FLAGGED_SHARE, shared_runs
from medqlora.records import Splits


class TrialsOfOnePool(SyntheticTrials):
    """Invented trials; the test questions are other draws with the names of the training questions.

    Draws whose text a development question has by chance, as `fit` checks it, are left out of the test.

    Args:
        train, dev, test, seed, difficulty, fold: as those of SyntheticTrials.
    """

    name = "TrialsOfOnePool"

    def read(self) -> Splits:
        splits = super().read()
        drawn = SyntheticTrials(self.test, 0, 1, self.seed + 700_000, self.difficulty).read().train
        runs, shared, _ = shared_runs([*splits.train, *splits.dev], drawn)
        apart = shared / np.maximum(1, runs) < FLAGGED_SHARE
        test = [
            replace(record, id=f"test-{number:05d}", where=f"{self.name} test {number}")
            for number, record in enumerate(drawn)
            if apart[number]
        ]
        return Splits(splits.train, splits.dev, test)
