"""The bytes of the tensors that exist at a time, as an allocator on a GPU counts them."""

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

#: of torch's allocator on a GPU
_BLOCK = 512


class AllocatedBytes(TorchDispatchMode):
    """Counts the storages of all tensors that operations return, until they are freed.

    What an operation allocates inside of itself, and frees again, isn't seen.

    Attributes:
        now, peak: bytes, without the tensors that existed before.

    Args:
        existing: tensors whose storages, and views of them, don't count.
    """

    def __init__(self, existing: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._sizes = {tensor.untyped_storage()._cdata: 0 for tensor in existing}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, torch.Tensor):
                storage = value.untyped_storage()
                if storage._cdata not in self._sizes:
                    size = -(-storage.nbytes() // _BLOCK) * _BLOCK
                    self._sizes[storage._cdata] = size
                    weakref.finalize(storage, self._freed, storage._cdata)
                    self.now += size
                    self.peak = max(self.peak, self.now)
        return result

    def _freed(self, key: int) -> None:
        self.now -= self._sizes.pop(key)
