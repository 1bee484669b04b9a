"""The number of optimizer steps of a run."""

from collections.abc import Sequence
from typing import Protocol

from medqlora.errors import InputError


class RunLength(Protocol):
    """The bounds of a run, as Lightning's Trainer has them."""

    @property
    def max_epochs(self) -> int | None: ...
    @property
    def max_steps(self) -> int: ...
    @property
    def limit_train_batches(self) -> int | float: ...


def limited(bounds: RunLength, steps: int) -> int:
    """Optimizer steps of an epoch of `steps` batches under `limit_train_batches`."""
    limit = bounds.limit_train_batches
    return min(steps, limit) if isinstance(limit, int) else int(steps * limit)


def total_steps(bounds: RunLength, epoch_steps: int | Sequence[int]) -> int:
    """Optimizer steps of the whole run.

    Args:
        bounds: the Trainer's.
        epoch_steps: batches of each epoch, or of every one; the last number is that of all further ones.

    `trainer.estimated_stepping_batches` of Lightning 2.6 sets the loader up before a resumed run's state is there,
    which is then lost.

    Raises:
        InputError: the run has no end.
    """
    ends = []
    epoch_steps = [epoch_steps] if isinstance(epoch_steps, int) else epoch_steps
    if bounds.max_epochs is not None and bounds.max_epochs >= 0:
        steps = [limited(bounds, count) for count in epoch_steps[: bounds.max_epochs]]
        ends.append(sum(steps) + (bounds.max_epochs - len(steps)) * limited(bounds, epoch_steps[-1]))
    if bounds.max_steps >= 0:
        ends.append(bounds.max_steps)
    if not ends:
        raise InputError(
            "--trainer.max_epochs -1 without --trainer.max_steps: the learning rate needs an end"
        )
    return min(ends)
