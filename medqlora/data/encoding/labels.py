"""Labels as token ids: scores are compared from the first token that differs, so no label may begin another."""

from collections.abc import Sequence


def shared_prefix(labels: Sequence[Sequence[int]]) -> tuple[int, int] | None:
    """The first pair of labels of which one begins the other, or equals it; None where there is none.

    Args:
        labels: the token ids of each label.

    Returns:
        The indices of the shorter and the longer label.
    """
    for shorter, ids in enumerate(labels):
        for longer, other in enumerate(labels):
            if shorter != longer and list(other[: len(ids)]) == list(ids):
                return shorter, longer
    return None
