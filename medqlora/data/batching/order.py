"""The order in which an epoch draws its examples."""

import random


def epoch_order(count: int, seed: int, epoch: int) -> list[int]:
    """Indices of `count` examples, shuffled: a function of (seed, epoch) alone, the same in every process.

    Args:
        count: the number of training examples.
        seed: `--data.seed`.
        epoch: counted from 0.
    """
    indices = list(range(count))
    random.Random(f"{seed}/{epoch}").shuffle(indices)
    return indices
