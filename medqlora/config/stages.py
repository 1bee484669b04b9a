"""The options of a training in stages (`data.stages`), and their check before torch is imported."""

import math
from dataclasses import dataclass
from typing import Literal

from medqlora.errors import InputError

Sampling = Literal["natural", "label", "label_length"]


@dataclass(frozen=True)
class StageOptions:
    """One stage of a training in stages. Validation and test stay those of `data.source`.

    Args:
        name: in messages and logs; null for the source's.
        epochs: passes over its questions.
        learning_rate: its highest rate; null for `model.learning_rate`.
        sampling: "natural" takes each question once an epoch; "label" draws as many of each label; "label_length" also
            as many of each third of prompt lengths within a label. Null follows `data.balance`.
        samples: questions of an epoch; each epoch goes on where the one before ended. Null for as many as there are.
    """

    name: str | None = None
    epochs: int = 1
    learning_rate: float | None = None
    sampling: Sampling | None = None
    samples: int | None = None

    def check(self, where: str) -> None:
        """Raises InputError for a number that can't be."""
        for option, value in (("epochs", self.epochs), ("samples", self.samples)):
            if value is not None and value < 1:
                raise InputError(f"{where}.{option} is {value}: it has to be at least 1")
        rate = self.learning_rate
        if rate is not None and not (math.isfinite(rate) and rate >= 0):
            raise InputError(f"{where}.learning_rate is {rate}: it has to be at least 0")
