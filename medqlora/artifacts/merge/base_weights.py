"""A base model's weights, tensor by tensor, as the model computes with them: dequantized where it is quantized.

Three kinds of files hold a quantized base model. Files in 16 bits are quantized when the model is loaded; files that
bitsandbytes wrote hold packed bytes and their scales, and GPTQ's and AWQ's packed integers. All are brought to the same
values here, without the model.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from medqlora.config.backends import BaseQuantization
from medqlora.config.stored_quantization import Int4Layout
from medqlora.models.int4 import Int4State, unpack
from medqlora.models.int4.layouts import matrix_of
from medqlora.models.quantization import import_bitsandbytes

#: what bitsandbytes writes behind the name of a 4-bit weight
_STATE = (".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map", ".quant_state.bitsandbytes__")
#: what GPTQ and AWQ write of a linear layer, in place of its weight
_PACKED, _INTEGERS = ".qweight", (".qweight", ".qzeros", ".scales", ".g_idx")
_BLOCK = 64  # values that share a scale, as transformers quantizes


@dataclass(frozen=True)
class Quantized:
    """How the live model holds its linear layers.

    Attributes:
        kind: nf4, fp4, int8 or none.
        double: the scales of nf4 and fp4 are quantized too.
        dtype: data type of the weights when they are quantized.
        modules: names of the quantized modules.
    """

    kind: BaseQuantization
    double: bool
    dtype: torch.dtype
    modules: frozenset[str]


class BaseWeights:
    """Reads single tensors of a base model's safetensors files.

    Args:
        files: the weight files.
        quantized: how the live model holds them; None where the files' values count as they are.
        layout: of the packed integers in the files; None where they hold none.
        renamed: name in a file -> parameter name; None where they are the same.

    Attributes:
        quantized, layout: as given.
        shapes: parameter name -> shape of the weight that it stands for.
    """

    def __init__(
        self,
        files: Sequence[Path],
        quantized: Quantized | None,
        layout: Int4Layout | None = None,
        renamed: Callable[[str], str] | None = None,
    ) -> None:
        self.quantized = quantized
        self.layout = layout
        self._places: dict[str, tuple[Path, str]] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        for file in files:
            with safe_open(file, framework="pt") as held:
                for stored in held.keys():  # noqa: SIM118  # no mapping
                    key = stored if renamed is None else renamed(stored)
                    self._places[key] = (file, stored)
                    shape = tuple(held.get_slice(stored).get_shape())
                    if layout is not None and key.endswith(_PACKED):
                        self.shapes[f"{key.removesuffix(_PACKED)}.weight"] = matrix_of(layout, shape)
                    elif not (layout is not None and key.endswith(_INTEGERS)) and not any(
                        part in key for part in _STATE
                    ):
                        self.shapes[key] = shape
        for name in self.shapes:
            if packed := self._packed_state(name):
                self.shapes[name] = tuple(self._stored_shape(packed))

    def leave_out(self, names: Iterable[str]) -> None:
        """Leaves out the biases of zeros that AutoGPTQ writes for layers without one, where they are among `names`."""
        with self.opened() as weights:
            for name in names:
                packed = f"{name.removesuffix('.bias')}{_PACKED}" in self._places
                if name.endswith(".bias") and packed and not bool(weights.read(name).any()):
                    del self.shapes[name]

    @contextmanager
    def opened(self) -> Iterator["OpenWeights"]:
        """The files, open to be read from."""
        with ExitStack() as stack:
            files = {
                file: stack.enter_context(safe_open(file, framework="pt"))
                for file in {file for file, _ in self._places.values()}
            }
            yield OpenWeights(self, files)

    def _packed_state(self, name: str) -> str | None:
        """The key of a 4-bit weight's state; None for a weight that is stored as it is."""
        return next(
            (
                key
                for kind in ("nf4", "fp4")
                if (key := f"{name}.quant_state.bitsandbytes__{kind}") in self._places
            ),
            None,
        )

    def _stored_shape(self, state: str) -> list[int]:
        file, key = self._places[state]
        with safe_open(file, framework="pt") as held:
            return list(json.loads(bytes(held.get_tensor(key).tolist()))["shape"])


class OpenWeights:
    """`BaseWeights` with its files open."""

    def __init__(self, weights: BaseWeights, files: Mapping[Path, "safe_open"]) -> None:
        self._weights = weights
        self._files = files

    def read(self, name: str) -> Tensor:
        """A weight's values as the model multiplies with them: float32 where it is quantized, else as stored."""
        quantized = self._weights.quantized
        state = self._weights._packed_state(name)
        if state is not None:
            return self._unpacked(name, state)
        layer = name.removesuffix(".weight")
        if self._weights.layout is not None and f"{layer}{_PACKED}" in self._weights._places:
            return self._from_integers(layer, self._weights.layout)
        stored = self._stored(name)
        if quantized is None or name.removesuffix(".weight") not in quantized.modules or stored.ndim != 2:
            return stored
        return requantized(stored.to(quantized.dtype), quantized.kind, quantized.double)

    def _stored(self, key: str) -> Tensor:
        file, stored = self._weights._places[key]
        tensor: Tensor = self._files[file].get_tensor(stored)
        return tensor

    def _from_integers(self, layer: str, layout: Int4Layout) -> Tensor:
        parts = {
            key[1:]: self._stored(f"{layer}{key}")
            for key in _INTEGERS
            if f"{layer}{key}" in self._weights._places
        }
        packed, scales, zeros, groups = weights = unpack(layout, parts)
        return Int4State(scales, zeros, groups, weights.inputs).dequantize(packed, torch.float32)

    def _unpacked(self, name: str, state: str) -> Tensor:
        functional = import_bitsandbytes().functional
        parts = {
            key[len(name) + 1 :]: self._stored(key)
            for key in self._weights._places
            if key.startswith(f"{name}.") and any(part in key for part in _STATE)
        }
        restored = functional.QuantState.from_dict(parts, device=torch.device("cpu"))
        restored.dtype = torch.float32
        values: Tensor = functional.dequantize_4bit(self._stored(name), restored)
        return values


def requantized(weight: Tensor, kind: BaseQuantization, double: bool) -> Tensor:
    """The float32 values that a weight has once bitsandbytes has quantized it.

    Args:
        weight: [out, in].
        kind: nf4, fp4, int8 or none.
        double: quantize the scales of nf4 and fp4 too.
    """
    functional = import_bitsandbytes().functional
    if kind == "none":
        return weight.float()
    if kind == "int8":
        codes, scales, _ = functional.int8_vectorwise_quant(weight.to(torch.float16))
        values: Tensor = codes.float() * (scales.float().view(-1, 1) / 127.0)
        return values
    codes, state = functional.quantize_4bit(
        weight.contiguous(), blocksize=_BLOCK, compress_statistics=double, quant_type=kind
    )
    state.dtype = torch.float32
    dequantized: Tensor = functional.dequantize_4bit(codes, state)
    return dequantized
