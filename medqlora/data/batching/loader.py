"""What Lightning iterates: whole optimizer steps in training, groups of examples in evaluation."""

import random
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from medqlora.data.batching.budget import TokenBudget
from medqlora.data.batching.packing import StepBatch, step_batch
from medqlora.records import Encoded


def epoch_order(count: int, seed: int, epoch: int) -> list[int]:
    """Indices of `count` examples in the shuffled order of an epoch: a function of seed and epoch only."""
    indices = list(range(count))
    random.Random(f"{seed}/{epoch}").shuffle(indices)
    return indices


class StepLoader:
    """Yields one `StepBatch` an optimizer step, and can go on in the middle of an epoch.

    The order of an epoch is a function of (seed, epoch) alone, so a resumed run draws the same examples
    as one that was never interrupted. Collating is a few list operations a step, far below a step's
    time: no worker processes are needed, and none can be left behind.

    Args:
        examples: the encoded training set.
        batch_size: examples in one optimizer step, over all processes.
        micro_batch_tokens: tokens that go through the model at once; memory and speed alone depend on it. A
            `TokenBudget` may change between steps.
        packed: packed rows; False for padded ones.
        pad_token_id: what padded rows are filled with.
        seed: of the shuffling.
        shuffle: False keeps the order of `examples`.
        rank, world_size: which share of every step is this process's.
        current_epoch: tells the epoch that an iteration belongs to, asked when it begins (the trainer
            knows it, also after a resume); without it every iteration is the next epoch.
    """

    def __init__(
        self,
        examples: Sequence[Encoded],
        batch_size: int,
        micro_batch_tokens: int | TokenBudget,
        *,
        packed: bool = True,
        pad_token_id: int = 0,
        seed: int = 0,
        shuffle: bool = True,
        rank: int = 0,
        world_size: int = 1,
        current_epoch: Callable[[], int] | None = None,
    ) -> None:
        self.examples = examples
        self.batch_size = batch_size
        self.budget = (
            TokenBudget(micro_batch_tokens) if isinstance(micro_batch_tokens, int) else micro_batch_tokens
        )
        self.packed = packed
        self.pad_token_id = pad_token_id
        self.seed = seed
        self.shuffle = shuffle
        self.rank = rank
        self.world_size = world_size
        self.current_epoch = current_epoch
        self._epoch = -1
        self._next = 0  # the step of this epoch that is yielded next
        self._resume: dict[str, int] | None = None

    def __len__(self) -> int:
        """Optimizer steps an epoch; the last one may hold fewer examples."""
        return -(-len(self.examples) // self.batch_size)

    def order(self, epoch: int) -> list[int]:
        """Indices of the examples in the order that `epoch` draws them."""
        count = len(self.examples)
        return epoch_order(count, self.seed, epoch) if self.shuffle else list(range(count))

    def __iter__(self) -> Iterator[StepBatch]:
        epoch = self.current_epoch() if self.current_epoch else self._epoch + 1
        resume, self._resume = self._resume, None
        if resume is not None and self.current_epoch is None:
            # a state from before the first step holds no epoch yet
            epoch = max(0, resume["epoch"] + (resume["next"] >= len(self)))
        # a state from an earlier epoch belongs to an epoch that was drawn to its end
        resumed = resume is not None and resume["epoch"] == epoch
        self._epoch, self._next = epoch, resume["next"] if resume is not None and resumed else 0
        order = self.order(epoch)
        while self._next < len(self):
            start = self._next * self.batch_size
            self._next += 1
            yield self.collate([self.examples[index] for index in order[start : start + self.batch_size]])

    @property
    def micro_batch_tokens(self) -> int:
        """The present token budget."""
        return self.budget.value

    def collate(self, examples: Sequence[Encoded]) -> StepBatch:
        """The step over `examples`, as this process's share."""
        return step_batch(
            examples,
            self.micro_batch_tokens,
            packed=self.packed,
            pad_token_id=self.pad_token_id,
            rank=self.rank,
            world_size=self.world_size,
        )

    def state_dict(self) -> dict[str, int]:
        """Where the loader stands: the epoch, and the step of it that comes next."""
        return {"epoch": self._epoch, "next": self._next}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._epoch, self._next = state["epoch"], state["next"]
        self._resume = dict(state)


class EvalBatch(NamedTuple):
    """Examples that are scored together; collated by the evaluation, which knows what it needs of them."""

    examples: tuple[Encoded, ...]

    @property
    def ids(self) -> tuple[str, ...]:
        """As a `StepBatch` has them: callbacks that count a batch's examples take both."""
        return tuple(example.id for example in self.examples)


class EvalLoader:
    """Yields every example once, in groups that fill a few micro-batches well.

    Args:
        examples: the encoded set.
        tokens: prompt tokens of a group, at most; a longer prompt is a group of its own.
        in_order: keep the order of `examples`, so that answers can be written as they come; otherwise
            the longest come first, so that memory is at its peak at once and little is padded in writing.
        rank, world_size: which of the groups are this process's; where there are too few, an empty one.
    """

    def __init__(
        self,
        examples: Sequence[Encoded],
        tokens: int,
        *,
        in_order: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        order = list(range(len(examples)))
        if not in_order:
            order.sort(key=lambda index: (-len(examples[index].prompt), index))
        groups: list[list[int]] = []
        used = 0
        for index in order:
            used += len(examples[index].prompt)
            if not groups or used > tokens:
                groups.append([])
                used = len(examples[index].prompt)
            groups[-1].append(index)
        mine = groups[rank::world_size]
        if groups and not mine:
            mine = [[]]  # Lightning would leave out the end of an evaluation too, where the processes meet
        self.batches = [EvalBatch(tuple(examples[index] for index in group)) for group in mine]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[EvalBatch]:
        return iter(self.batches)
