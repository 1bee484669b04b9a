"""Lets transformers load a GPTQ or AWQ base: its packed tensors by their names, its other weights as ever.

transformers' own readers of these files need the package gptqmodel. This one is registered under a name of its own,
through transformers' public interface for quantizers, and `packed_config` names it in a copy of the base's
configuration. The tensors' names in the files decide which layers are packed.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn
from transformers.quantizers import HfQuantizer, register_quantization_config, register_quantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from medqlora.config.stored_quantization import Int4Layout, int4_layout
from medqlora.errors import InputError
from medqlora.models.int4.layouts import matrix_of, unpack
from medqlora.models.int4.linear import Int4Linear
from medqlora.models.layers import decoder_modules
from medqlora.models.weight_files import TensorEntry, read_header

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

_NAME = "medqlora_int4"
_PARTS = ("qweight", "qzeros", "scales", "g_idx", "bias")
_AGAIN = "copy or download the base again"


def packed_config(config: "PretrainedConfig", stored: Mapping[str, object], base: str) -> "PretrainedConfig":
    """A copy of a base's configuration with which `from_pretrained` keeps its 4-bit integers.

    Args:
        config: the base's.
        stored: its `quantization_config`.
        base: for messages.

    Raises:
        InputError: the layout can't be read.
    """
    changed = copy.deepcopy(config)
    layout = asdict(int4_layout(stored, base))
    changed.quantization_config = {"quant_method": _NAME, "base": base, **layout}
    return changed


@register_quantization_config(_NAME)
class _Int4Config(QuantizationConfigMixin):
    """The layout, as transformers hands it on."""

    def __init__(self, **values: object) -> None:
        self.quant_method = values.pop("quant_method", _NAME)  # type: ignore[assignment]  # no method of transformers'
        self.base = str(values.pop("base"))
        self.layout = Int4Layout(**values)  # type: ignore[arg-type]


@register_quantizer(_NAME)
class _Int4Reader(HfQuantizer):
    """Puts `_Stored` layers into the model before the weights are read, and the final layers after."""

    requires_calibration = True
    quantization_config: _Int4Config

    def is_serializable(self) -> bool:
        return False

    @property
    def is_trainable(self) -> bool:
        return True

    def _process_model_before_weight_loading(
        self, model: "PreTrainedModel", checkpoint_files: Sequence[str] | None = None, **options: object
    ) -> "PreTrainedModel":
        base, layout = self.quantization_config.base, self.quantization_config.layout
        linear = {name: module for name, module in model.named_modules() if type(module) is nn.Linear}
        packed: dict[str, dict[str, TensorEntry]] = {}
        for file in map(Path, checkpoint_files or ()):
            if file.suffix != ".safetensors":
                raise InputError(
                    f"--model.backend.base: '{file}' is no safetensors file, and {layout.method.upper()} bases are "
                    "read from those alone: take the base's safetensors version"
                )
            header = read_header(file)
            for key in header:
                name, _, part = key.rpartition(".")
                if name in linear and part in _PARTS:
                    packed.setdefault(name, {})[part] = header[key]
        packed = {name: parts for name, parts in packed.items() if "qweight" in parts}
        if not packed:
            raise InputError(
                f"--model.backend.base: config.json of '{base}' says {layout.method.upper()}, and its files hold no "
                f"qweight of the model's linear layers: {_AGAIN}"
            )
        for name, parts in packed.items():
            _check_shape(name, linear[name], parts, layout, base)
            model.set_submodule(name, _Stored(parts, linear[name]))
        return model

    def _process_model_after_weight_loading(
        self, model: "PreTrainedModel", **options: object
    ) -> "PreTrainedModel":
        inside = {name for name, _ in decoder_modules(model)}
        stored = [(name, module) for name, module in model.named_modules() if isinstance(module, _Stored)]
        for name, module in stored:
            layer: nn.Linear
            layer = packed = module.finished(self.quantization_config, name, model.dtype)
            if name not in inside:  # a head: its rows are read as numbers
                layer = _dense(packed, model.dtype)
            model.set_submodule(name, layer.train(module.training))
        return model


class _Stored(nn.Module):
    """A linear layer's tensors as they lie in the files, while the files are read.

    Args:
        parts: name → type and shape.
        linear: the layer, on the meta device.
    """

    def __init__(self, parts: Mapping[str, TensorEntry], linear: nn.Linear) -> None:
        super().__init__()
        self.biased = linear.bias is not None
        for part, entry in parts.items():
            dtype = _TYPES.get(entry["dtype"], torch.int32)
            if part == "bias" and linear.bias is not None:
                dtype = linear.bias.dtype
            self.register_buffer(part, torch.empty(entry["shape"], dtype=dtype, device="meta"))
        if self.biased and "bias" not in parts:
            self.register_buffer("bias", linear.bias.detach())  # its absence is reported as ever

    def finished(self, config: _Int4Config, name: str, dtype: torch.dtype) -> Int4Linear:
        """The layer that computes. Raises InputError where its tensors don't fit each other."""
        tensors = dict(self.named_buffers())
        bias = tensors.pop("bias", None)
        if bias is not None and not self.biased and not bool(bias.any()):
            bias = None  # AutoGPTQ writes zeros where the model has no bias
        try:
            return Int4Linear(unpack(config.layout, tensors), bias, dtype)
        except ValueError as error:
            raise InputError(f"--model.backend.base: '{config.base}': '{name}': {error}: {_AGAIN}") from error


#: safetensors' names of the types that these tensors have
_TYPES = {
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "I32": torch.int32,
    "I64": torch.int64,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
}


def _check_shape(
    name: str, linear: nn.Linear, parts: Mapping[str, TensorEntry], layout: Int4Layout, base: str
) -> None:
    """Refuses a packed weight of another matrix than the model's."""
    if missing := {"qweight", "scales"} - set(parts):
        raise InputError(
            f"--model.backend.base: the files of '{base}' lack '{name}.{min(missing)}': {_AGAIN}"
        )
    shape = tuple(parts["qweight"]["shape"])
    expected = (linear.out_features, linear.in_features)
    if len(shape) != 2 or matrix_of(layout, shape) != expected:
        raise InputError(
            f"--model.backend.base: '{base}': '{name}.qweight' is {list(shape)}, and {layout.method.upper()} in 4 bits "
            f"holds [out, in] {list(expected)} otherwise: its config.json is another model's, or names another layout: "
            f"{_AGAIN}"
        )


def _dense(layer: Int4Linear, dtype: torch.dtype) -> nn.Linear:
    with torch.device("meta"):
        linear = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None, dtype=dtype)
    linear.weight = nn.Parameter(layer.dequantized(dtype), requires_grad=False)
    if layer.bias is not None:
        linear.bias = nn.Parameter(layer.bias.data.to(dtype), requires_grad=False)
    return linear


def forget_reader(model: "PreTrainedModel") -> None:
    """Removes this reader's traces from a loaded model: what saves or wraps it would take them for transformers'."""
    for owner, name in (
        (model, "hf_quantizer"),
        (model, "quantization_method"),
        (model.config, "quantization_config"),
    ):
        if name in vars(owner):
            delattr(owner, name)
    setattr(model, "is_quantized", False)  # noqa: B010  # transformers sets it likewise; a Module's type knows none
