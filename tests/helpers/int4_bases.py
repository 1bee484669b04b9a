"""Tiny GPTQ and AWQ bases, written number by number from the formats' published definition, and their dense twins.

GPTQ (AutoGPTQ's `QuantLinear.pack`): word r of qweight's column c holds in its bits 4 i to 4 i + 3 the code of input
8 r + i and output c. A word of qzeros holds eight outputs' zero points in order, each less one in the first format.
AWQ (AutoAWQ's `WQLinear_GEMM.from_linear`): word c of qweight's row r holds at place i the code of input r and output
8 c + (0, 2, 4, 6, 1, 3, 5, 7)[i]; qzeros likewise.
"""

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

#: family and layouts → layout → (the base, its dequantized twin)
Twins = Callable[[str, Iterable[str]], dict[str, tuple[Path, Path]]]
ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
#: name → (method, fields of quantization_config)
LAYOUTS: dict[str, tuple[str, dict[str, Any]]] = {
    "gptq": ("gptq", {"group_size": 32, "sym": True, "desc_act": False}),
    "gptq-act-order": ("gptq", {"group_size": 32, "sym": False, "desc_act": True}),
    "gptq-one-group": ("gptq", {"group_size": -1, "sym": False, "desc_act": True}),
    "gptq-wide": ("gptq", {"group_size": 128, "sym": False, "desc_act": False, "checkpoint_format": "gptq"}),
    "gptq-v2": ("gptq", {"group_size": 64, "sym": False, "desc_act": True, "checkpoint_format": "gptq_v2"}),
    "awq": ("awq", {"group_size": 64, "zero_point": True, "version": "gemm"}),
    "awq-small": ("awq", {"group_size": 32, "zero_point": True, "version": "GEMM"}),
    "awq-one-group": ("awq", {"group_size": -1, "zero_point": True, "version": "gemm"}),
    "awq-symmetric": ("awq", {"group_size": 128, "zero_point": False, "version": "gemm"}),
}


def words(codes: Any, places: tuple[int, ...] = tuple(range(8))) -> Tensor:
    """int32 words [..., n / 8] of codes [..., n]; place i of a word holds the code `places[i]` of its eight."""
    packed = np.zeros((*codes.shape[:-1], codes.shape[-1] // 8), dtype=np.uint32)
    for word in range(packed.shape[-1]):
        for place, which in enumerate(places):
            packed[..., word] |= codes[..., 8 * word + which].astype(np.uint32) << np.uint32(4 * place)
    return torch.from_numpy(packed.view(np.int32))


def quantized(
    weight: Tensor, method: str, fields: dict[str, Any], seed: int
) -> tuple[dict[str, Tensor], Tensor]:
    """The tensors of one linear layer's file, and the matrix [out, in] that they stand for, in float32."""
    random = np.random.default_rng(seed)
    matrix = weight.float().numpy()
    outputs, inputs = matrix.shape
    size = inputs if fields["group_size"] == -1 else min(fields["group_size"], inputs)
    group_of = np.arange(inputs) // size
    if fields.get("desc_act"):
        group_of = random.permutation(group_of)
    symmetric = fields.get("sym", not fields.get("zero_point", False))
    groups = group_of.max() + 1
    scales = np.zeros((groups, outputs), dtype=np.float16)
    zeros = np.zeros((groups, outputs), dtype=np.int64)
    codes = np.zeros((inputs, outputs), dtype=np.int64)
    for group in range(groups):
        members = group_of == group
        block = matrix[:, members]
        if symmetric:
            scales[group] = np.abs(block).max(1) * 2 / 15
            zeros[group] = 8
        else:
            low, high = np.minimum(block.min(1), -1e-3), np.maximum(block.max(1), 1e-3)
            scales[group] = (high - low) / 15
            zeros[group] = np.clip(np.round(-low / scales[group].astype(np.float32)), 1, 15)
        rounded = np.round(block.T / scales[group].astype(np.float32)) + zeros[group]
        codes[members] = np.clip(rounded, 0, 15)
    values = (codes - zeros[group_of]).astype(np.float32) * scales[group_of].astype(np.float32)
    tensors = {"scales": torch.from_numpy(scales)}
    if method == "gptq":
        less = 0 if fields.get("checkpoint_format") == "gptq_v2" else 1
        tensors["qweight"] = words(codes.T).t().contiguous()
        tensors["qzeros"] = words(zeros - less)
        tensors["g_idx"] = torch.from_numpy(group_of.astype(np.int32))
    else:
        tensors["qweight"] = words(codes, ORDER)
        tensors["qzeros"] = words(zeros, ORDER)
    return tensors, torch.from_numpy(values.T.copy())


def make_int4(dense: Path, folder: Path, layout: str, **changes: Any) -> tuple[Path, Path]:
    """(a base whose linear layers are quantized, a base with the dequantized weights in float32).

    Args:
        dense: a base in float32.
        folder: where both go.
        layout: of `LAYOUTS`.
        changes: fields of its quantization_config; None leaves one out.
    """
    method, fields = LAYOUTS[layout]
    packed, twin = folder / layout, folder / f"{layout}-dense"
    for made in (packed, twin):
        shutil.copytree(dense, made)
    inside: dict[str, Tensor] = {}
    values: dict[str, Tensor] = {}
    for seed, (name, tensor) in enumerate(sorted(load_file(dense / "model.safetensors").items())):
        if name.endswith("_proj.weight"):
            tensors, values[name] = quantized(tensor, method, fields, seed)
            inside |= {f"{name.removesuffix('weight')}{part}": each for part, each in tensors.items()}
        else:
            inside[name] = values[name] = tensor
    save_file(inside, packed / "model.safetensors", metadata={"format": "pt"})
    save_file(values, twin / "model.safetensors", metadata={"format": "pt"})
    stored = {"quant_method": method, "bits": 4, **fields, **changes}
    config = json.loads((packed / "config.json").read_text())
    config["quantization_config"] = {key: value for key, value in stored.items() if value is not None}
    (packed / "config.json").write_text(json.dumps(config))
    return packed, twin
