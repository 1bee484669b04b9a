"""From the tensors of GPTQ's and AWQ's files to one packed form.

The files hold for each linear layer, in int32 words of eight 4-bit numbers from the lowest bits on:

| tensor | GPTQ | AWQ (gemm) |
|---|---|---|
| qweight | [in / 8, out]: eight inputs of one output | [in, out / 8]: eight outputs of one input, interleaved |
| qzeros | [G, out / 8], in order | [G, out / 8], interleaved |
| scales | [G, out] | [G, out] |
| g_idx | [in] int32: the group of each input | - |

AWQ's word holds the outputs 0, 2, 4, 6, 1, 3, 5, 7. GPTQ's first format stores a zero point less one.
With `desc_act`, GPTQ quantizes the inputs in the order of their weight in the loss, and `g_idx` is in no order.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from medqlora.config.stored_quantization import Int4Layout

#: the place in AWQ's word of the outputs 0, 1, 2, …
_AWQ_PLACES = (0, 4, 1, 5, 2, 6, 3, 7)


class Int4Weights(NamedTuple):
    """A weight in the one form that the layer and the kernels read.

    Attributes:
        packed: [out, in / 2] uint8; the first of two inputs lies in a byte's low half.
        scales: [out, G], in the files' type.
        zeros: [out, G] uint8.
        groups: [in] int32; None where groups are neighbours of one size.
    """

    packed: Tensor
    scales: Tensor
    zeros: Tensor
    groups: Tensor | None

    @property
    def inputs(self) -> int:
        return 2 * self.packed.shape[1]


def matrix_of(layout: Int4Layout, qweight: tuple[int, ...]) -> tuple[int, int]:
    """(out, in) of the matrix, from the shape of its qweight."""
    rows, columns = qweight
    return (columns, 8 * rows) if layout.method == "gptq" else (8 * columns, rows)


def unpack(layout: Int4Layout, stored: Mapping[str, Tensor]) -> Int4Weights:
    """The weight of one layer.

    Args:
        layout: of the files.
        stored: qweight, scales, and where the files have them qzeros and g_idx.

    Raises:
        ValueError: the tensors don't fit each other; says how.
    """
    qweight, scales = stored["qweight"], stored["scales"]
    if qweight.dtype != torch.int32 or qweight.ndim != 2:
        raise ValueError(f"qweight is {_told(qweight)}, and [rows, columns] of int32 is read")
    outputs, inputs = matrix_of(layout, tuple(qweight.shape))
    if not scales.is_floating_point() or scales.ndim != 2 or scales.shape[1] != outputs or not len(scales):
        raise ValueError(f"scales is {_told(scales)}, and qweight has {outputs} outputs")
    if inputs % 2:
        raise ValueError(f"qweight has {inputs} inputs, an odd number")
    groups = len(scales)
    return Int4Weights(
        _packed(layout, qweight),
        scales.t().contiguous(),
        _zeros(layout, stored.get("qzeros"), groups, outputs, scales.device).t().contiguous(),
        _groups(layout, stored.get("g_idx"), groups, inputs),
    )


def _packed(layout: Int4Layout, qweight: Tensor) -> Tensor:
    if layout.method == "gptq":  # a word's bytes lie in the inputs' order, two of them in each
        return qweight.t().contiguous().view(torch.uint8)
    codes = _interleaved(qweight).t()  # [out, in]
    return (codes[:, 0::2] | (codes[:, 1::2] << 4)).contiguous()


def _nibbles(words: Tensor) -> Tensor:
    """[rows, columns, 8] uint8 from int32 words [rows, columns]."""
    parts = words.contiguous().view(torch.uint8).view(*words.shape, 4)
    return torch.stack((parts & 15, parts >> 4), -1).view(*words.shape, 8)


def _interleaved(words: Tensor) -> Tensor:
    """[rows, 8 columns] in order, from AWQ's words."""
    return _nibbles(words)[:, :, list(_AWQ_PLACES)].flatten(1)


def _zeros(
    layout: Int4Layout, qzeros: Tensor | None, groups: int, outputs: int, device: torch.device
) -> Tensor:
    """[G, out] uint8; without stored ones the quantization is symmetric, around 8."""
    if qzeros is None or not qzeros.numel():
        return torch.full((groups, outputs), 8, dtype=torch.uint8, device=device)
    if qzeros.dtype != torch.int32 or tuple(qzeros.shape) != (groups, -(-outputs // 8)):
        raise ValueError(
            f"qzeros is {_told(qzeros)}, and {groups} groups of {outputs} outputs need {[groups, -(-outputs // 8)]} of "
            "int32"
        )
    if layout.method == "awq":
        return _interleaved(qzeros)
    # four bits, as AutoGPTQ's own dequantization has them: a stored 15 stands for 0
    return (_nibbles(qzeros).flatten(1)[:, :outputs] + layout.zero_offset) & 15


def _groups(layout: Int4Layout, g_idx: Tensor | None, groups: int, inputs: int) -> Tensor | None:
    """[in] int32; None where they are neighbours of one size."""
    size = min(layout.group_size, inputs) if layout.group_size > 0 else inputs
    if -(-inputs // size) != groups:  # another size than config.json's, as GPTQ's `dynamic` allows
        size = -(-inputs // groups)
    neighbours = torch.arange(inputs, dtype=torch.int32) // size
    if int(neighbours[-1]) + 1 != groups:
        raise ValueError(f"scales has {groups} groups, into which {inputs} inputs can't be divided")
    if g_idx is not None and g_idx.numel():
        if g_idx.numel() != inputs or g_idx.is_floating_point():
            raise ValueError(f"g_idx is {_told(g_idx)}, and qweight has {inputs} inputs")
        given = g_idx.flatten().to("cpu", torch.int32)
        if int(given.min()) < 0 or int(given.max()) >= groups:
            raise ValueError(f"g_idx names group {int(given.max())}, and scales has {groups} groups")
        if not torch.equal(given, neighbours):
            return given.to(g_idx.device)
    return None if inputs % size == 0 else neighbours


def _told(tensor: Tensor) -> str:
    return f"{list(tensor.shape)} of {str(tensor.dtype).removeprefix('torch.')}"
