"""Scales, zero points and groups of a packed 4-bit weight, and its dequantization."""

import torch
from torch import Tensor, nn

#: values that are dequantized at a time: bounds the transient memory
_CHUNK = 1 << 24


class Int4State(nn.Module):
    """What a packed weight [out, in / 2] needs to become numbers; the packed weight's attribute `quant_state`.

    It is a module without a forward: its tensors move with the layer that owns it.

    Attributes:
        shape: [out, in] of the matrix that the packed weight stands for.
        scales: [out, G], in the files' type.
        zeros: [out, G] uint8.
        groups: [in] int32, the group of each input; None where they are `group_size` neighbours each.
        group_size: inputs of a group; where `groups` is given, on average.
    """

    #: beside bitsandbytes' nf4 and fp4
    quant_type = "int4"
    scales: Tensor
    zeros: Tensor
    groups: Tensor | None

    def __init__(self, scales: Tensor, zeros: Tensor, groups: Tensor | None, inputs: int) -> None:
        super().__init__()
        self.shape = torch.Size((scales.shape[0], inputs))
        self.group_size = -(-inputs // scales.shape[1])
        self.register_buffer("scales", scales)
        self.register_buffer("zeros", zeros)
        self.register_buffer("groups", groups)

    @torch.no_grad()
    def dequantize(self, packed: Tensor, dtype: torch.dtype) -> Tensor:
        """The matrix [out, in]: (q - z) s in float32, rounded once to `dtype`.

        Args:
            packed: [out, in / 2] uint8; the first of two inputs lies in a byte's low half.
        """
        rows, inputs = self.shape
        packed = packed.view(torch.uint8).view(rows, inputs // 2)
        out = torch.empty(rows, inputs, dtype=dtype, device=packed.device)
        step = max(1, _CHUNK // inputs)
        for start in range(0, rows, step):
            part = slice(start, start + step)
            out[part] = self._values(packed[part], self.zeros[part].float(), self.scales[part].float())
        return out

    def _values(self, packed: Tensor, zeros: Tensor, scales: Tensor) -> Tensor:
        codes = torch.stack((packed & 15, packed >> 4), -1).view(len(packed), -1).float()
        if self.groups is None:
            grouped = codes.view(len(codes), -1, self.group_size)
            return grouped.sub_(zeros[..., None]).mul_(scales[..., None]).view(codes.shape)
        return codes.sub_(zeros[:, self.groups]).mul_(scales[:, self.groups])
