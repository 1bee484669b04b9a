"""Gradients' errors of base products in 8 bits, emulated exactly: why the fused engine has none (see docs).

    python tests/gpu/fp8_products.py {8b|tiny} PUBMEDQA_FILE TOKENIZER_FOLDER [VARIANT …]

Operands are rounded to 8 bits under their scales and multiplied in float32; all else runs in bfloat16. One JSON line a
variant: the relative errors of the loss and of all LoRA gradients against float32, on four layers of the shape as in
`engine.py`. A GPU with fp8 units is not needed.
"""

import sys
from typing import Any, NamedTuple

import torch
from engine import DEVICE, build, gradients, say
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoTokenizer

from medqlora.data import PubMedQA
from medqlora.data.batching.packing import pack
from medqlora.datamodule import PubMedQADataModule
from medqlora.fused import FusedDecoder
from medqlora.fused.group import Group
from medqlora.models import Decoder
from medqlora.models.quantization import settle

#: the largest value of each type
LARGEST = {torch.float8_e4m3fn: 448.0, torch.float8_e5m2: 57344.0, torch.int8: 127.0}
#: the rows and columns that share a scale; None for all
AREAS: dict[str, tuple[int | None, int | None]] = {
    "row": (1, None), "tensor": (None, None), "1x128": (1, 128), "128x128": (128, 128),
}  # fmt: skip
ALL = ("qkv", "o", "gate_up", "down")
MLP = ("gate_up", "down")
e4m3, e5m2, int8 = torch.float8_e4m3fn, torch.float8_e5m2, torch.int8


class Variant(NamedTuple):
    """Types of the left operands of the two kinds of products, and the area that shares a scale on both sides.

    Attributes:
        forward: of the inputs; the weights are e4m3 or int8 as well.
        gradient: of the outputs' gradients; None as in `forward` for bfloat16.
        areas: of the left operand and of the weights.
        groups: those with such products.
        ends: False leaves the first and the last layer in bfloat16.
    """

    forward: torch.dtype | None = None
    gradient: torch.dtype | None = None
    areas: tuple[str, str] = ("row", "row")
    groups: tuple[str, ...] = ALL
    ends: bool = True


VARIANTS = {
    "bfloat16": Variant(),
    "forward e4m3, rows": Variant(e4m3),
    "forward e4m3, tensors": Variant(e4m3, areas=("tensor", "tensor")),
    "forward e4m3, 1x128 and 128x128": Variant(e4m3, areas=("1x128", "128x128")),
    "forward e4m3, 1x128 and 1x128": Variant(e4m3, areas=("1x128", "1x128")),
    "forward e4m3, gate|up and down": Variant(e4m3, groups=MLP),
    "forward e4m3, ends in bfloat16": Variant(e4m3, ends=False),
    "gradient e5m2, rows": Variant(None, e5m2),
    "gradient e4m3, rows": Variant(None, e4m3),
    "forward e4m3, gradient e5m2": Variant(e4m3, e5m2),
    "forward e4m3, gradient e4m3": Variant(e4m3, e4m3),
    "forward int8, rows": Variant(int8),
    "forward int8, gate|up and down": Variant(int8, groups=MLP),
    "forward int8, gradient int8": Variant(int8, int8),
    "both int8, gate|up and down": Variant(int8, int8, groups=MLP),
}


def rounded(x: Tensor, dtype: torch.dtype, area: str) -> Tensor:
    """x [R, C] rounded to `dtype` under a scale of its own for each area, float32."""
    x = x.float()
    rows, columns = (side or size for side, size in zip(AREAS[area], x.shape, strict=True))
    padded = F.pad(x.abs(), (0, -x.shape[1] % columns, 0, -x.shape[0] % rows))
    most = padded.unflatten(1, (-1, columns)).unflatten(0, (-1, rows)).amax((1, 3))
    scale = most.clamp_min(1e-30) / LARGEST[dtype]
    scale = scale.repeat_interleave(rows, 0)[: x.shape[0]].repeat_interleave(columns, 1)[:, : x.shape[1]]
    scaled = (x / scale).clamp(-LARGEST[dtype], LARGEST[dtype])
    return (scaled.round() if dtype == torch.int8 else scaled).to(dtype).float() * scale


class EightBits(Group):
    """A group whose products with W round both operands to 8 bits; LoRA's products stay as they are."""

    variant = Variant()

    def _times(self, left: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
        weights = torch.int8 if dtype == torch.int8 else torch.float8_e4m3fn
        areas = self.variant.areas
        product = rounded(left, dtype, areas[0]) @ rounded(right, weights, areas[1]).t()
        return product.to(left.dtype).float()  # as a product in 8 bits returns it

    def forward(
        self, x: Tensor, seed: Any, residual: Tensor | None = None, *, tailed: bool = False, **options: Any
    ) -> tuple[Tensor, Tensor]:
        dtype = self.variant.forward
        if dtype is None:
            return super().forward(x, seed, residual, tailed=tailed, **options)
        low = x[:, self.inputs :]
        self.compress(x[:, : self.inputs], seed, low)
        y = self._times(x[:, : self.inputs], self._below(0), dtype) + low.float() @ self.up.float().t()
        if residual is not None:
            y += residual.float()
        out = self.gradient_operand(len(x), x) if tailed else torch.empty_like(y, dtype=x.dtype)
        out[:, : self.outputs] = y
        return out, low.clone(memory_format=torch.contiguous_format)

    def input_gradient(self, dy: Tensor, seed: Any) -> Tensor:
        dtype = self.variant.gradient
        if dtype is None:
            return super().input_gradient(dy, seed)
        dx = self._times(dy[:, : self.outputs], self._below(0).t(), dtype)
        return (dx + dy[:, self.outputs :].float() @ self.down.float()).to(dy.dtype)


def use(decoder: FusedDecoder, variant: Variant) -> FusedDecoder:
    """The decoder, its groups as the variant says."""
    for layer in decoder.layers:
        second = layer.second
        named = {"o": second.o, "gate_up": second.gate_up, "down": second.down}
        groups = [("qkv", group) for group in layer.first.groups] + list(named.items())
        inside = variant.ends or (layer.index > 0 and not layer.last)
        for name, group in groups:
            if name in variant.groups and inside:
                group.__class__ = EightBits
                group.variant = variant  # type: ignore[attr-defined]
    return decoder


def main(shape: str, file: str, tokenizer: str, *chosen: str) -> None:
    data = PubMedQADataModule(PubMedQA(path=file, fold=0))
    data.read(AutoTokenizer.from_pretrained(tokenizer), ("train",), report=lambda _: None)
    batch = pack(data.train[:3]).to(DEVICE)
    model = build(shape, layers=4)
    body = model.get_base_model()

    def compute_in(dtype: torch.dtype) -> None:
        settle(model, DEVICE, dtype)
        norms = [each for each in body.modules() if type(each).__name__ == "LlamaRMSNorm"]
        for module in (body.model.embed_tokens, body.lm_head, *norms):
            module.weight.data = module.weight.data.to(dtype)

    compute_in(torch.float32)
    loss = Decoder(model).loss_sum(batch)
    expected, expected_loss = gradients(model, loss), loss.item()
    compute_in(torch.bfloat16)
    for name, variant in VARIANTS.items():
        if chosen and name not in chosen:
            continue
        decoder = use(FusedDecoder(model, checkpointing="none"), variant)
        with torch.autocast(DEVICE.type, dtype=torch.bfloat16):
            loss = decoder.loss_sum(batch)
        found = gradients(model, loss)
        of_gradients = ((found - expected).norm() / expected.norm()).item()
        say(name, {"loss": abs(loss.item() / expected_loss - 1), "gradients": of_gradients})


if __name__ == "__main__":
    main(*sys.argv[1:])
