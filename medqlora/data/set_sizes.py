"""Numbers of steps, tokens and examples of the sets that were read."""

from typing import Literal

from medqlora.data.batching.budget import TokenBudget
from medqlora.data.batching.epochs import EpochPlan, Part
from medqlora.data.question_set import QuestionSet
from medqlora.records import Encoded


class SetSizes:
    """What is counted on the sets of `StageData`, which sets these attributes."""

    train: list[Encoded]
    dev: list[Encoded]
    test: list[Encoded]
    sets: list[QuestionSet]
    parts: list[Part]
    stage_names: list[str]
    batch_size: int
    budget: TokenBudget

    @property
    def micro_batch_tokens(self) -> int | Literal["auto"]:
        """Tokens of a micro-batch; "auto" until the fit is planned."""
        return self.budget.option

    @property
    def token_budget(self) -> int:
        """`micro_batch_tokens` as a number; 2,048 for "auto"."""
        return self.budget.value

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of the first epoch; the last one may hold fewer examples."""
        return self.epoch_steps[0] if self.stage_names else -(-len(self.train) // self.batch_size)

    @property
    def epoch_steps(self) -> list[int]:
        """Optimizer steps of each epoch of a training in stages; without stages one number, for every epoch."""
        if not self.stage_names:
            return [self.steps_per_epoch]
        return [-(-part.count // self.batch_size) for part in self.parts for _ in range(part.epochs or 1)]

    def stage_at(self, epoch: int) -> tuple[int, str, int, int] | None:
        """Number and name of the stage of `epoch`, and the epoch's number in it of how many; None without stages."""
        if not self.stage_names:
            return None
        number, within = EpochPlan(self.parts).part_of(epoch)
        return number + 1, self.stage_names[number], within + 1, self.parts[number].epochs or 1

    @property
    def train_lengths(self) -> list[tuple[int, int]]:
        """(prompt, completion) of each training example, in tokens."""
        return [(len(example.prompt), len(example.completion)) for example in self.train]

    @property
    def examples(self) -> list[Encoded]:
        """All tokenized examples; those of the source's test set occur in `test` and in `sets`."""
        listed = [example for questions in self.sets for example in questions.test]
        return [*self.train, *self.dev, *self.test, *listed]

    @property
    def longest_example(self) -> Encoded | None:
        """The example with the most tokens; None where `predict` has no question left."""
        return max(self.examples, key=_length, default=None)

    @property
    def longest(self) -> int:
        """Tokens of the longest example, with the longest of its possible answers; 0 without any example."""
        return 0 if self.longest_example is None else _length(self.longest_example)

    def probe(self) -> list[Encoded]:
        """A few short examples of different lengths, to compare packed rows with single ones."""
        by_length: dict[int, Encoded] = {}
        for example in [*self.train, *self.dev, *self.test]:
            by_length.setdefault(len(example.prompt) + len(example.completion), example)
        shortest = [by_length[length] for length in sorted(by_length)[:3]]
        return shortest * 2 if len(shortest) == 1 else shortest


def _length(example: Encoded) -> int:
    return len(example.prompt) + max(map(len, (example.completion, *example.labels)))
