"""Seeds of dropout masks: numbers, or values on the device that a CUDA graph reads when it runs."""

from typing import NamedTuple, TypeAlias

from torch import Tensor


class DeviceSeed(NamedTuple):
    """A seed on the device.

    Attributes:
        value: [] int64.
        offset: is added to it.
    """

    value: Tensor
    offset: int = 0

    def plus(self, offset: int) -> "DeviceSeed":
        """The seed that many places further."""
        return DeviceSeed(self.value, self.offset + offset)


#: of a pass, a group or a mask
Seed: TypeAlias = int | DeviceSeed


def plus(seed: Seed | None, offset: int) -> Seed | None:
    """The seed that many places further; None for none."""
    if seed is None or isinstance(seed, int):
        return None if seed is None else seed + offset
    return seed.plus(offset)
