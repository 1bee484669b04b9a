"""Labels as token ids: scores are compared from the first token that differs, so one must not begin another."""

from collections.abc import Sequence
from typing import NamedTuple


class SharedPrefix(NamedTuple):
    """Two labels whose scores can't be compared, as indices: the ids of `shorter` begin those of `longer`."""

    shorter: int
    longer: int


def shared_prefix(labels: Sequence[Sequence[int]]) -> SharedPrefix | None:
    """The first pair of labels of which one begins the other, or equals it; None where there is none.

    Args:
        labels: the token ids of each label.
    """
    for shorter, ids in enumerate(labels):
        for longer, other in enumerate(labels):
            if shorter != longer and list(other[: len(ids)]) == list(ids):
                return SharedPrefix(shorter, longer)
    return None
