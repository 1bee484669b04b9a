"""The part of a packed 4-bit weight that a process keeps of a sharded base."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from medqlora.compat.bitsandbytes import observed_weights
from medqlora.compat.transformers import one_weight_at_a_time
from medqlora.models.finite import scales_are_finite
from medqlora.models.int4 import Int4State
from medqlora.models.quantization import quant_state

#: alignment in bytes of a tensor in its weight's buffer, as in torch's own allocations
_ALIGNMENT = 256
#: the name of the mesh's dimension whose processes share a base
SHARD = "shard"


class Share(NamedTuple):
    """This process's part of a packed weight.

    Attributes:
        part: [bytes] uint8.
        tensors: (first byte, type, shape) of each of the weight's tensors in the buffer of all parts.
        state: the weight's quantization state, by whose `id` the share is found.
    """

    part: Tensor
    tensors: list[tuple[int, torch.dtype, torch.Size]]
    state: object


def packed_weights(module: nn.Module) -> list[nn.Parameter]:
    """The 4-bit weights of a module: those of bitsandbytes' linear layers, and packed experts."""
    return [weight for weight in module.parameters() if quant_state(weight) is not None]


def cut(weight: nn.Parameter, rank: int, count: int) -> Share:
    """Takes the values and scales out of a packed weight; returns part `rank` of `count`."""
    owners = tensors_of(weight)
    tensors: list[Tensor] = [getattr(owner, name) for owner, name in owners]
    starts, end = [], 0
    for tensor in tensors:
        starts.append(_up(end, _ALIGNMENT))
        end = starts[-1] + tensor.nbytes
    size = _up(end, _ALIGNMENT * count) // count
    buffer = torch.zeros(size * count, dtype=torch.uint8, device=weight.device)
    for tensor, start in zip(tensors, starts, strict=True):
        buffer[start : start + tensor.nbytes].copy_(tensor.contiguous().view(-1).view(torch.uint8))
    for (owner, name), tensor in zip(owners, tensors, strict=True):
        setattr(owner, name, tensor.new_empty(0))
    layout = [(start, each.dtype, each.shape) for start, each in zip(starts, tensors, strict=True)]
    return Share(buffer[rank * size : (rank + 1) * size].clone(), layout, quant_state(weight))


@contextmanager
def cut_while_loading(mesh: DeviceMesh) -> Iterator[dict[int, Share]]:
    """While entered, cuts each weight of a `Linear4bit` as soon as it is quantized or read.

    So no device and no host ever holds more than one process's shares and the weight that is being read.

    Yields:
        `id` of the weight's quantization state → its share.
    """
    rank, count = place_in(mesh)
    shares: dict[int, Share] = {}

    def take(weight: nn.Parameter) -> None:
        if scales_are_finite(weight):  # a damaged one stays, and the check of the loaded model names it
            shares[id(quant_state(weight))] = cut(weight, rank, count)

    with observed_weights(take), one_weight_at_a_time():
        yield shares


def tensors_of(weight: nn.Parameter) -> list[tuple[object, str]]:
    """The tensors with nearly all of a packed weight's bytes: packed values, their scales, and the scales of those.

    Each is an attribute of the weight or of its quantization state.
    """
    state = quant_state(weight)
    assert state is not None
    if isinstance(state, Int4State):
        return [(weight, "data"), (state, "scales"), (state, "zeros")]
    owners: list[tuple[object, str]] = [(weight, "data"), (state, "absmax")]
    if state.nested:
        owners.append((state.state2, "absmax"))
    return owners


def place_in(mesh: DeviceMesh) -> tuple[int, int]:
    """This process's number among those that share a base, and how many they are."""
    shard = mesh[SHARD] if mesh.ndim > 1 else mesh
    return shard.get_local_rank(), shard.size()


def _up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple
