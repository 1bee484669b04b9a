"""A decoder family joins the fused engine with one file, inside the package or outside."""

from pathlib import Path

import pytest
from fused_models import assert_same, examples, gradients, load, one_by_one
from tiny import build_base
from transformers import LlamaConfig, MistralConfig, Qwen2Config

from medqlora.data.batching.packing import pack
from medqlora.fused import FusedDecoder, unsupported
from medqlora.fused.families import FAMILIES
from medqlora.fused.families.base import sliding_window
from medqlora.fused.support import unsupported_shape
from medqlora.utils.registry import PLUGINS, import_plugins

PLUGIN = """
from medqlora.fused.families import FAMILIES, Family

FAMILIES.add("seed_oss", Family(qkv_bias=True))
"""


def test_a_family_outside_the_package_registers_in_one_file_and_runs_as_pefts_forward_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_dropout = {"attention_dropout": 0.0, "residual_dropout": 0.0}
    model = load(build_base(tmp_path / "base", "seed_oss", **no_dropout))
    assert "its architecture is seed_oss, known are llama, mistral, qwen2, qwen3" in str(unsupported(model))
    (tmp_path / "family_of_a_test.py").write_text(PLUGIN, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv(PLUGINS, "family_of_a_test")
    monkeypatch.setattr(FAMILIES, "_entries", dict(FAMILIES))
    import_plugins()
    assert unsupported(model) is None
    expected_loss, expected = one_by_one(model, examples())
    loss = FusedDecoder(model).loss_sum(pack(examples()))
    assert loss.item() == pytest.approx(expected_loss.item(), rel=1e-5)
    assert_same(gradients(model, loss), expected)


def test_a_window_is_the_one_that_the_configuration_switches_on() -> None:
    assert sliding_window(MistralConfig(sliding_window=8)) == 8
    assert sliding_window(MistralConfig(sliding_window=None)) is None
    assert sliding_window(Qwen2Config(sliding_window=8)) is None
    some = Qwen2Config(sliding_window=8, use_sliding_window=True, num_hidden_layers=2, max_window_layers=1)
    assert sliding_window(some) == 8
    none = Qwen2Config(sliding_window=8, use_sliding_window=True, num_hidden_layers=2, max_window_layers=2)
    assert sliding_window(none) is None


def test_a_llama_that_slices_its_products_is_refused() -> None:
    assert unsupported_shape(LlamaConfig()) is None
    assert unsupported_shape(LlamaConfig(pretraining_tp=2)) == "its pretraining_tp is 2"
