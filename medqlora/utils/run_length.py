"""The number of optimizer steps of a run."""

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


def total_steps(bounds: RunLength, steps_per_epoch: int) -> int:
    """Optimizer steps of the whole run.

    `trainer.estimated_stepping_batches` of Lightning 2.6 sets the loader up before a resumed run's state is there,
    which is then lost.

    Raises:
        InputError: the run has no end.
    """
    limit, epoch = bounds.limit_train_batches, steps_per_epoch
    epoch = min(epoch, limit) if isinstance(limit, int) else int(epoch * limit)
    ends = []
    if bounds.max_epochs is not None and bounds.max_epochs >= 0:
        ends.append(bounds.max_epochs * epoch)
    if bounds.max_steps >= 0:
        ends.append(bounds.max_steps)
    if not ends:
        raise InputError(
            "--trainer.max_epochs -1 without --trainer.max_steps: the learning rate needs an end"
        )
    return min(ends)
