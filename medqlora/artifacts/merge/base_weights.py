"""A base model's weights, tensor by tensor, as the model computes with them: dequantized where it is quantized.

Two kinds of files hold a quantized base model. Files in 16 bits are quantized when the model is loaded; files that
bitsandbytes wrote hold packed bytes and their scales. Both are brought to the same values here, without the model.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from medqlora.config.backends import Quantization
from medqlora.models.quantization import import_bitsandbytes

#: what bitsandbytes writes behind the name of a 4-bit weight
_STATE = (".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map", ".quant_state.bitsandbytes__")
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

    kind: Quantization
    double: bool
    dtype: torch.dtype
    modules: frozenset[str]


class BaseWeights:
    """Reads single tensors of a base model's safetensors files.

    Args:
        files: the weight files.
        quantized: how the live model holds them; None where the files' values count as they are.

    Attributes:
        quantized: as given.
        shapes: parameter name -> shape of the weight that it stands for.
    """

    def __init__(self, files: Sequence[Path], quantized: Quantized | None) -> None:
        self.quantized = quantized
        self._places: dict[str, Path] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        for file in files:
            with safe_open(file, framework="pt") as held:
                for key in held.keys():  # noqa: SIM118  # no mapping
                    self._places[key] = file
                    if not any(part in key for part in _STATE):
                        self.shapes[key] = tuple(held.get_slice(key).get_shape())
        for name in self.shapes:
            if packed := self._packed_state(name):
                self.shapes[name] = tuple(self._stored_shape(packed))

    @contextmanager
    def opened(self) -> Iterator["OpenWeights"]:
        """The files, open to be read from."""
        with ExitStack() as stack:
            files = {
                file: stack.enter_context(safe_open(file, framework="pt"))
                for file in {*self._places.values()}
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
        with safe_open(self._places[state], framework="pt") as held:
            return list(json.loads(bytes(held.get_tensor(state).tolist()))["shape"])


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
        stored = self._stored(name)
        if quantized is None or name.removesuffix(".weight") not in quantized.modules or stored.ndim != 2:
            return stored
        return requantized(stored.to(quantized.dtype), quantized.kind, quantized.double)

    def _stored(self, key: str) -> Tensor:
        tensor: Tensor = self._files[self._weights._places[key]].get_tensor(key)
        return tensor

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


def requantized(weight: Tensor, kind: Quantization, double: bool) -> Tensor:
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
