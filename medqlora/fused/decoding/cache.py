"""The key-value cache: a slot for each row of tokens that is being continued."""

from collections.abc import Mapping

import torch
from torch import Tensor

from medqlora.fused.attention_half import Heads


class KeyValueCache:
    """Keys and values of each layer, [slots, capacity, H_kv, d]; a slot holds one row's tokens from its start.

    Args:
        layers: number of layers.
        heads: of a layer's attention.
        dtype, device: of keys and values.

    Attributes:
        slots, capacity: rows, and tokens of each; 0 before `resize`.
        version: changes with the buffers' addresses.
    """

    def __init__(self, layers: int, heads: Heads, dtype: torch.dtype, device: torch.device) -> None:
        self._layers, self._heads, self._dtype, self._device = layers, heads, dtype, device
        self.slots = self.capacity = self.version = 0
        self._all = torch.empty(2, layers, 0, 0, heads.keys, heads.width, dtype=dtype, device=device)

    @property
    def token_bytes(self) -> int:
        """The bytes of one token's keys and values, over all layers."""
        return 2 * self._layers * self._heads.keys * self._heads.width * self._dtype.itemsize

    def keys(self, layer: int) -> Tensor:
        return self._all[0, layer]

    def values(self, layer: int) -> Tensor:
        return self._all[1, layer]

    def resize(self, slots: int, capacity: int, kept: Mapping[int, tuple[int, int]]) -> None:
        """New buffers, with some of the old slots' tokens.

        Args:
            slots, capacity: of the new buffers; 0 frees them.
            kept: old slot → (new slot, number of tokens).
        """
        old = self._all
        if not kept:
            # frees the old buffers before the new ones are allocated
            self._all = old = old.new_empty(2, self._layers, 0, 0, *old.shape[4:])
        # a masked token has the weight 0, and 0 times an uninitialised value may be NaN
        self._all = old.new_zeros(2, self._layers, slots, capacity, *old.shape[4:])
        for slot, (new, tokens) in kept.items():
            self._all[:, :, new, :tokens].copy_(old[:, :, slot, :tokens])
        self.slots, self.capacity = slots, capacity
        self.version += 1

    def move(self, source: int, target: int, tokens: int) -> None:
        """Copies a row's tokens to another slot."""
        self._all[:, :, target, :tokens].copy_(self._all[:, :, source, :tokens])
        self._all[:, :, target, tokens:].zero_()

    def clear(self, slot: int) -> None:
        """Overwrites what an earlier row left: a NaN there would reach the next row through a weight of 0."""
        self._all[:, :, slot].zero_()

    def store(self, layer: int, keys: Tensor, values: Tensor, source: Tensor, places: Tensor) -> None:
        """Writes the keys and values of a packed pass.

        Args:
            layer: index of the layer.
            keys, values: [T, H_kv, d].
            source: [n] int64: the tokens to keep.
            places: [n] int64: slot · capacity + position of each.
        """
        for kind, tensor in enumerate((keys, values)):
            self._all[kind, layer].flatten(0, 1).index_copy_(0, places, tensor[source])
