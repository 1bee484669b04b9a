"""A source outside the package: synthetic trials whose test questions are drawn as the development questions are.

`SyntheticTrials` gives each set names of its own, so its test questions are a little harder than held-out development
questions. Folds estimate the accuracy on questions of the same kind, as a split of one collection gives them.
"""

from dataclasses import replace

from medqlora.data import SyntheticTrials
from medqlora.records import Splits


class TrialsOfOnePool(SyntheticTrials):
    """Invented trials; the test questions are other draws with the names of the training questions.

    Args:
        train, dev, test, seed, difficulty, fold: as those of SyntheticTrials.
    """

    name = "TrialsOfOnePool"

    def read(self) -> Splits:
        splits = super().read()
        drawn = SyntheticTrials(self.test, 0, 1, self.seed + 700_000, self.difficulty).read().train
        asked = {record.question for record in (*splits.train, *splits.dev)}
        test = [
            replace(record, id=f"test-{number:05d}", where=f"{self.name} test {number}")
            for number, record in enumerate(drawn)
            if record.question not in asked
        ]
        return Splits(splits.train, splits.dev, test)
