"""The classes of the optimizers' names."""

import torch
from torch.optim import Optimizer

from medqlora.config.optimizers import (
    BITSANDBYTES_OPTIMIZERS,
    FLAT_OPTIMIZERS,
    NamedOptimizer,
    class_path,
    nearest_name,
    spelled_out,
)
from medqlora.models.quantization import import_bitsandbytes

__all__ = [
    "FLAT_OPTIMIZERS",
    "NamedOptimizer",
    "class_path",
    "nearest_name",
    "optimizer_class",
    "spelled_out",
]


def optimizer_class(name: NamedOptimizer) -> type[Optimizer]:
    """The class of a name that is none of `FLAT_OPTIMIZERS`."""
    home = import_bitsandbytes().optim if name in BITSANDBYTES_OPTIMIZERS else torch.optim
    optimizer: type[Optimizer] = getattr(home, name)
    return optimizer
