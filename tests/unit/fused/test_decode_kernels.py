"""A decoding pass by the Triton kernels gives the logits, keys and values of a pass by torch's operations.

Triton's interpreter runs the kernels on a CPU; `tests/gpu/generation.py` runs them on a GPU.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from fused_models import CPU, load
from peft import LoraConfig
from tiny import build_base
from torch import Tensor

from medqlora.fused import FusedDecoder
from medqlora.fused.decoding import AdapterBank, DecodePass, KeyValueCache
from medqlora.fused.decoding.cache import blocks_for
from medqlora.fused.decoding.graphs import Graphs

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
pytestmark = pytest.mark.skipif(
    find_spec("triton") is None, reason="needs Triton, which torch brings with CUDA only"
)
interpreted = pytest.mark.skipif(
    not INTERPRETED, reason="runs in the process of test_kernels_in_the_interpreter"
)
#: sizes that the kernels take
SIZES: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 128,
    "head_dim": 64,
    "initializer_range": 0.2,
}
SOME_LAYERS = {"sliding_window": 9, "use_sliding_window": True, "max_window_layers": 1}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "qwen2": ("qwen2", SOME_LAYERS),  # biases, and a window on some layers
    "qwen3": ("qwen3", {}),  # head norms
}
CAPACITY = 40


@pytest.mark.skipif(INTERPRETED, reason="this is the process")
def test_kernels_in_the_interpreter() -> None:
    """Runs the tests below in a process of their own: Triton reads TRITON_INTERPRET when it is first imported."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "0", "-q", "-p", "no:cacheprovider", __file__],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert " passed" in done.stdout


@pytest.fixture(scope="module")
def kernel_pass() -> ModuleType:
    from medqlora.fused.decoding import kernel_pass as module

    return module


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """A variant's model with two adapters, loaded at its first use."""
    root, loaded = tmp_path_factory.mktemp("kernels"), {}

    def model(name: str) -> Any:
        if name not in loaded:
            family, changes = VARIANTS[name]
            made = load(
                build_base(Path(root / name), family, **SIZES, **changes), double_quantization=name != "qwen2"
            )
            made.add_adapter("second", LoraConfig(r=3, lora_alpha=24, target_modules=["q_proj", "down_proj"]))
            generator = torch.Generator().manual_seed(5)
            for key, parameter in made.named_parameters():
                if "second" in key:
                    parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
            loaded[name] = made.eval()
        return loaded[name]

    return model


def logits_of(
    decoder: FusedDecoder, rows: int, adapters: list[int] | None, module: ModuleType | None
) -> Tensor:
    """[rows, V]: the next token of each row, behind random keys and values."""
    cache = KeyValueCache(len(decoder.layers), decoder.layers[0].first.heads, decoder.dtype, CPU)
    cache.resize(rows * blocks_for(CAPACITY))
    cache.widen(rows, CAPACITY)
    for _ in range(2):  # the second time no row's blocks are in order
        for slot in range(rows):
            cache.take(slot, CAPACITY)
        for slot in range(rows):
            cache.give_back(slot)
    for slot in range(rows):
        cache.take(slot, CAPACITY)
    cache.update()
    generator = torch.Generator().manual_seed(1)
    for index in range(len(decoder.layers)):
        for tensor in (cache.keys(index), cache.values(index)):
            tensor.copy_(torch.randn(tensor.shape, generator=generator))
    kernels = None if module is None else module.KernelPass(decoder, cache)
    decoding = DecodePass(decoder, cache, Graphs(CPU), kernels)
    decoding.resize(rows)
    bank = AdapterBank(decoder)
    positions = (torch.arange(rows) * 7 + 3) % (CAPACITY - 1)
    decoding.state.copy_(
        torch.stack([torch.arange(rows) + 3, positions, torch.tensor(adapters or [0] * rows)])
    )
    longest = int(positions.max()) + 1
    if adapters is None:
        decoder.refresh(decoder.adapters_on)
        return decoding.run(rows, longest, ())
    bank.refresh()
    with bank.routing(decoding.state[2], decoding.state[2]):
        return decoding.run(rows, longest, ())


@interpreted
@pytest.mark.parametrize(
    ("name", "cached", "rows"),
    [
        ("llama", 0, 2),  # the row kernel
        ("qwen2", 0, 5),
        ("qwen3", 2, 5),
    ],
)
def test_kernels_give_the_logits_of_torch(
    kernel_pass: ModuleType, models: Callable[[str], Any], name: str, cached: int, rows: int
) -> None:
    decoder = FusedDecoder(models(name), checkpointing="none", cached=cached)
    assert kernel_pass.unfit(decoder) is None
    expected = logits_of(decoder, rows, None, None)
    found = logits_of(decoder, rows, None, kernel_pass)
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=2e-4)


@interpreted
def test_rows_keep_to_their_adapters(kernel_pass: ModuleType, models: Callable[[str], Any]) -> None:
    decoder = FusedDecoder(
        models("llama"), checkpointing="none", cached=1
    )  # the last layer's weights are kept
    adapters = [1, -1, 0, 1, 0]
    expected = logits_of(decoder, 5, adapters, None)
    found = logits_of(decoder, 5, adapters, kernel_pass)
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=2e-4)
    assert not torch.allclose(found[2], found[4], atol=1e-2)


@interpreted
def test_more_rows_than_the_kernel_takes_are_dequantized_first(
    kernel_pass: ModuleType, models: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = FusedDecoder(models("llama"), checkpointing="none")
    expected = logits_of(decoder, 4, None, None)
    monkeypatch.setattr("medqlora.fused.decoding.products._MOST_ROWS", 3)
    found = logits_of(decoder, 4, None, kernel_pass)
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=2e-4)


@interpreted
def test_adapters_can_be_off(kernel_pass: ModuleType, models: Callable[[str], Any]) -> None:
    model = models("qwen2")
    decoder = FusedDecoder(model, checkpointing="none")
    on = logits_of(decoder, 5, None, None)
    with model.disable_adapter():
        expected = logits_of(decoder, 5, None, None)
        found = logits_of(decoder, 5, None, kernel_pass)
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=2e-4)
    assert not torch.allclose(on, found, atol=1e-2)


@interpreted
def test_operands_as_integers_have_fifteen_bits(kernel_pass: ModuleType) -> None:
    """What `triton_nf4_row` reads: its assembly runs on a GPU alone."""
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(2, 320, generator=generator) * torch.logspace(-3, 3, 320)
    x[0, :64] = 0  # a block of zeros
    x[1, 100] = 1e4  # one large value in a block
    weight = torch.ones(320)
    out, squares = torch.empty(2, 320), torch.empty(2, 2)
    limbs, scales = torch.zeros(2, 640, dtype=torch.int8), torch.empty(2, 5)
    unused = torch.empty(1)
    kernel_pass.kernels.residual[(2, 2)](
        x, *(unused,) * 6, weight, out, limbs, scales, squares, 2, 0, 0, 0, 320,
        SPLITS=0, LOW_SPLITS=0, RANKS=0, OWN=False, ROUTED=False, BIAS=False, ORDER=2, PARTS=2,
    )  # fmt: skip
    torch.testing.assert_close(out, x)
    high, low = limbs.view(2, 2, 2, 40, 4).long().unbind(1)
    whole = (256 * high + low).transpose(1, 2).reshape(2, 40, 8)  # nibble by nibble
    in_order = whole[:, :, [1, 0, 3, 2, 5, 4, 7, 6]].reshape(2, 5, 64)
    error = (in_order * scales[:, :, None] - x.view(2, 5, 64)).abs().amax(-1)
    assert (error <= x.view(2, 5, 64).abs().amax(-1) * 2.0**-15).all()
    torch.testing.assert_close(squares.sum(1), x.square().sum(1))
