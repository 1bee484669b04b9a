"""What a report says of the run beside its scores."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

#: (optimizer step, value), in order
Curve: TypeAlias = Sequence[tuple[int, float]]


class Context(NamedTuple):
    """The header's facts and the training curves.

    Attributes:
        facts: name in words → value, in the order of the header.
        curves: "train/loss" and the validation scores ("val/…") of the adapter's training; empty where they are not
            known.
    """

    facts: Mapping[str, str] = {}
    curves: Mapping[str, Curve] = {}
