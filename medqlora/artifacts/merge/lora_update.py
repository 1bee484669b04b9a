"""The update that a LoRA adapter makes to each weight of its base model.

Plain LoRA: W' = W + s B A with s = alpha / r (Hu et al., 2021, https://arxiv.org/abs/2106.09685), or s = alpha /
sqrt(r) with rsLoRA (Kalajdzievski, 2023, https://arxiv.org/abs/2312.03732). DoRA: W' = m (W + s B A) / ||W + s B A||,
the norm taken over each output's inputs (Liu et al., 2024, https://arxiv.org/abs/2402.09353).
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor

from medqlora.errors import InputError
from medqlora.models.adapters import adapter_config

#: of PEFT's tensor names
_PREFIX = "base_model.model."
_LORA = re.compile(r"(.+)\.lora_(A|B)\.weight")
_MAGNITUDE = re.compile(r"(.+)\.lora_magnitude_vector(?:\.weight)?")


class LoRAWeights(NamedTuple):
    """One module's adapter.

    Attributes:
        a: [r, in].
        b: [out, r].
        scale: factor of B A.
        magnitude: [out] with DoRA, else None.
    """

    a: Tensor
    b: Tensor
    scale: float
    magnitude: Tensor | None = None


@dataclass(frozen=True)
class LoRAUpdate:
    """An adapter's tensors, by what they change.

    Attributes:
        modules: module name -> its LoRA weights.
        replaced: parameter name -> tensor that stands in its place (`modules_to_save`, trained biases).
        transposed: the modules hold their weights as [in, out] (GPT-2's Conv1D).
    """

    modules: Mapping[str, LoRAWeights]
    replaced: Mapping[str, Tensor] = field(default_factory=dict)
    transposed: bool = False

    def apply(self, module: str, weight: Tensor) -> Tensor:
        """The merged weight of `module`; computed in the precision of `weight`, which is not changed.

        Args:
            module: name in the base model, as "model.layers.0.self_attn.q_proj".
            weight: [out, in], or [in, out] where `transposed`.

        Raises:
            InputError: the adapter's shapes are not the weight's.
        """
        lora = self.modules[module]
        matrix = weight.T if self.transposed else weight
        if matrix.shape != (lora.b.shape[0], lora.a.shape[1]):
            raise InputError(
                f"--adapter: its weights for {module} are [{lora.b.shape[0]}, {lora.a.shape[1]}], and the base model's "
                f"{list(matrix.shape)}: it belongs to another base model"
            )
        a, b = lora.a.to(matrix), lora.b.to(matrix)
        merged = torch.addmm(matrix, b, a, alpha=lora.scale)
        if lora.magnitude is not None:
            norm = torch.linalg.vector_norm(merged, dim=1, keepdim=True)
            merged = merged * (lora.magnitude.to(matrix).reshape(-1, 1) / norm)
        return merged.T.contiguous() if self.transposed else merged


def read_update(folder: Path) -> LoRAUpdate:
    """Reads an adapter folder in PEFT's format, which `read_adapter` has checked.

    Raises:
        InputError: the adapter changes something that can't be merged into single weights.
    """
    config = adapter_config(str(folder))
    a: dict[str, Tensor] = {}
    b: dict[str, Tensor] = {}
    magnitudes: dict[str, Tensor] = {}
    replaced: dict[str, Tensor] = {}
    with safe_open(folder / "adapter_model.safetensors", framework="pt") as file:
        for key in file.keys():  # noqa: SIM118  # no mapping
            name = key.removeprefix(_PREFIX)
            tensor = file.get_tensor(key).float()
            if match := _LORA.fullmatch(name):
                (a if match[2] == "A" else b)[match[1]] = tensor
            elif match := _MAGNITUDE.fullmatch(name):
                magnitudes[match[1]] = tensor
            elif ".lora_" in name:
                raise InputError(
                    f"--adapter: it adapts {name.split('.lora_')[0]} with {name.rpartition('.lora_')[2]}, which can't "
                    "be merged tensor by tensor: use the adapter as it is"
                )
            else:
                replaced[name] = tensor
    modules = {
        name: LoRAWeights(a[name], b[name], _scale(config, name, len(a[name])), magnitudes.get(name))
        for name in a
    }
    return LoRAUpdate(modules, replaced, bool(config.get("fan_in_fan_out")))


def _scale(config: Mapping[str, object], module: str, rank: int) -> float:
    """alpha / r, or alpha / sqrt(r) with rsLoRA; `alpha_pattern` decides for the modules that it names."""
    alpha = config.get("lora_alpha", 8)
    patterns = config.get("alpha_pattern")
    for pattern, value in (patterns if isinstance(patterns, dict) else {}).items():
        if re.fullmatch(
            rf"(.*\.)?({pattern})", module
        ):  # as PEFT matches: the end of a name, or an expression
            alpha = value
            break
    if not isinstance(alpha, (int, float)):
        raise InputError(f"--adapter: its lora_alpha is {alpha!r}: it has to be a number")
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
