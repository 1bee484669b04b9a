"""Private parts of bitsandbytes behave as `medqlora.compat.bitsandbytes` says."""

import sys
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from medqlora.compat.bitsandbytes import (
    import_bitsandbytes,
    keep_packed_weight,
    observed_quantization,
    set_compute_dtype,
)


def quantized_layer() -> nn.Module:
    layer = import_bitsandbytes().nn.Linear4bit(64, 64, bias=False, quant_type="nf4")
    layer.weight.data = torch.randn(64, 64)
    return layer.to("cpu")


def test_the_import_leaves_the_package_kernels_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = ModuleType("kernels")
    monkeypatch.setitem(sys.modules, "kernels", kernels)
    monkeypatch.delitem(sys.modules, "bitsandbytes", raising=False)
    seen: list[object] = []

    def import_module(name: str) -> ModuleType:
        seen.append(sys.modules["kernels"])
        return ModuleType(name)

    monkeypatch.setattr("medqlora.compat.bitsandbytes.import_module", import_module)
    assert import_bitsandbytes().__name__ == "bitsandbytes"
    assert seen == [None]  # the import of kernels fails meanwhile
    assert sys.modules["kernels"] is kernels


def test_a_layer_computes_in_the_type_that_was_set_whatever_its_weight_recorded() -> None:
    layer = quantized_layer()
    set_compute_dtype(layer, torch.bfloat16)
    assert layer.weight.quant_state.dtype == torch.bfloat16
    layer(torch.randn(2, 64))  # the first forward would choose float32
    assert layer.compute_dtype == torch.bfloat16


def test_a_layer_keeps_its_bytes_in_an_evaluation_on_a_cpu() -> None:
    layer = quantized_layer()
    assert hasattr(layer, "support_avx512bf16_for_cpu")  # else the switch has another name
    keep_packed_weight(layer)
    before = layer.weight.data.clone()
    layer.eval()(torch.randn(2, 64))
    assert torch.equal(layer.weight.data, before)


def test_quantization_is_observed_while_entered_and_not_after() -> None:
    functional = import_bitsandbytes().functional
    original, seen = functional.quantize_4bit, list[Tensor]()
    weight = torch.randn(64, 64)
    with observed_quantization(seen.append):
        packed, _ = functional.quantize_4bit(weight, quant_type="nf4")
        functional.int8_vectorwise_quant(weight.half())
    assert [tuple(tensor.shape) for tensor in seen] == [(64, 64)] * 2
    assert torch.equal(packed, original(weight, quant_type="nf4")[0])
    assert functional.quantize_4bit is original
