"""The loaders that Lightning iterates: optimizer steps in training, groups of examples in evaluation."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from medqlora.data.batching.budget import TokenBudget
from medqlora.data.batching.epochs import EpochPlan, Part, epoch_order
from medqlora.data.batching.packing import StepBatch, step_batch
from medqlora.records import Encoded

__all__ = ["EvalBatch", "EvalLoader", "StepLoader", "epoch_order"]


class StepLoader:
    """Yields one `StepBatch` per optimizer step, and resumes in the middle of an epoch.

    The order of an epoch is a function of (seed, epoch) alone, so a resumed run draws the same examples as an
    uninterrupted one. Collating takes a few list operations per step, so no worker processes are needed.

    Args:
        examples: the encoded training set.
        batch_size: examples in one optimizer step, over all processes.
        micro_batch_tokens: tokens in one forward pass; only memory and speed depend on it. A `TokenBudget` may change
            between steps.
        packed: packed rows; False for padded rows.
        pad_token_id: the padding of padded rows.
        seed: the seed of the order.
        shuffle: False keeps the order of `examples`.
        rank, world_size: this process's share of every step.
        current_epoch: gives the epoch when an iteration begins (the trainer's, also after a resume); without it,
            every iteration is the next epoch.
        plan: the examples of each epoch, where it is not every one of `examples` once.
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
        plan: EpochPlan | None = None,
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
        self.plan = EpochPlan([Part(examples)], seed) if plan is None else plan
        self._epoch = -1
        self._next = 0  # the next step of this epoch
        self._resume: dict[str, int] | None = None

    def __len__(self) -> int:
        """Optimizer steps of the present epoch; the last step may hold fewer examples."""
        return self.steps(self.current_epoch() if self.current_epoch else max(0, self._epoch))

    def steps(self, epoch: int) -> int:
        """Optimizer steps of `epoch`."""
        return -(-self.plan.count(epoch) // self.batch_size)

    def order(self, epoch: int) -> list[int]:
        """Indices of the examples of `epoch`, within its part of the plan, in their order."""
        return self.plan.order(epoch) if self.shuffle else list(range(len(self.examples)))

    def present(self, epoch: int | None = None) -> Sequence[Encoded]:
        """What `order` counts; None for the epoch that is iterated."""
        return self.plan.part(max(0, self._epoch) if epoch is None else epoch).examples

    def __iter__(self) -> Iterator[StepBatch]:
        epoch = self.current_epoch() if self.current_epoch else self._epoch + 1
        resume, self._resume = self._resume, None
        if resume is not None and self.current_epoch is None:
            # a state from before the first step has no epoch yet
            epoch = max(0, resume["epoch"] + (resume["next"] >= self.steps(max(0, resume["epoch"]))))
        # an earlier epoch in the state was complete
        resumed = resume is not None and resume["epoch"] == epoch
        self._epoch, self._next = epoch, resume["next"] if resume is not None and resumed else 0
        order, examples = self.order(epoch), self.present(epoch)
        while self._next < self.steps(epoch):
            start = self._next * self.batch_size
            self._next += 1
            yield self.collate([examples[index] for index in order[start : start + self.batch_size]])

    @property
    def micro_batch_tokens(self) -> int:
        """The present token budget."""
        return self.budget.value

    def collate(self, examples: Sequence[Encoded]) -> StepBatch:
        """This process's share of the step over `examples`."""
        return step_batch(
            examples,
            self.micro_batch_tokens,
            packed=self.packed,
            pad_token_id=self.pad_token_id,
            rank=self.rank,
            world_size=self.world_size,
        )

    def state_dict(self) -> dict[str, int]:
        """The epoch, and the next step in it."""
        return {"epoch": self._epoch, "next": self._next}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._epoch, self._next = state["epoch"], state["next"]
        self._resume = dict(state)


class EvalBatch(NamedTuple):
    """Examples to score together; the evaluation collates what it needs."""

    examples: tuple[Encoded, ...]

    @property
    def ids(self) -> tuple[str, ...]:
        """The examples' ids, as in `StepBatch`: callbacks that count examples take both."""
        return tuple(example.id for example in self.examples)


class EvalLoader:
    """Yields every example once, in groups that fill a few micro-batches.

    Args:
        examples: the encoded set.
        tokens: the limit of a group's prompt tokens; a longer prompt is a group of its own.
        in_order: keep the order of `examples`, so that predictions can be written at once. Otherwise the longest come
            first: memory peaks at the start, and generation pads little.
        rank, world_size: this process's share of the groups; an empty group where there are too few.
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
            mine = [[]]  # else Lightning skips the end of an evaluation, where the processes join
        self.batches = [EvalBatch(tuple(examples[index] for index in group)) for group in mine]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[EvalBatch]:
        return iter(self.batches)
