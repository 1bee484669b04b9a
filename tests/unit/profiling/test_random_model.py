"""A random model is built as a loaded one is, and never holds its matrices in 16 bits beside one another."""

import weakref
from pathlib import Path
from typing import Any

import bitsandbytes as bnb
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from medqlora.errors import InputError
from medqlora.models import Transformers
from medqlora.models.quantization import count_parameters
from medqlora.models.transformers import checkpoint_activations
from medqlora.profiling.random_model import (
    add_adapters,
    build_base,
    write_checkpoint,
)
from medqlora.profiling.shapes import SHAPES

CPU = torch.device("cpu")
TINY = SHAPES["tiny"][1]


def build(**changes: Any) -> Any:
    return build_base({**TINY, **changes}, device=CPU, dtype=torch.float32)


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2"])
def test_every_family_trains(family: str) -> None:
    model = add_adapters(build(model_type=family, head_dim=16))
    ids = torch.randint(512, (1, 12), generator=torch.Generator().manual_seed(0))
    model(input_ids=ids, labels=ids).loss.backward()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert len(trained) == 2 * 7 * TINY["num_hidden_layers"]
    for parameter in trained:
        assert parameter.dtype == torch.float32
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0  # of A too: B is not zero


def test_linear_layers_of_the_blocks_are_in_nf4_doubly_quantized_and_the_head_is_not() -> None:
    model = build()
    linears = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    quantized = [module for module in linears if isinstance(module, bnb.nn.Linear4bit)]
    assert [module for module in linears if module not in quantized] == [model.lm_head]
    assert len(quantized) == 7 * TINY["num_hidden_layers"]
    for module in quantized:
        state = module.weight.quant_state
        assert (state.quant_type, state.nested, module.weight.dtype) == ("nf4", True, torch.uint8)
        assert state.shape == (module.out_features, module.in_features)


def test_it_counts_the_parameters_of_transformers_own_model() -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    values = {key: value for key, value in TINY.items() if key != "model_type"}
    for tied in (False, True):
        config = AutoConfig.for_model("llama", **{**values, "tie_word_embeddings": tied})
        expected = sum(
            parameter.numel() for parameter in AutoModelForCausalLM.from_config(config).parameters()
        )
        assert count_parameters(build(tie_word_embeddings=tied)) == (0, expected)


class _Alive(TorchDispatchMode):
    """The most tensors of a shape, in a floating type, that were alive at one time."""

    def __init__(self, shape: tuple[int, int]) -> None:
        super().__init__()
        self.shape, self.most = shape, 0
        self._seen: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        fits = isinstance(out, torch.Tensor) and out.is_floating_point() and not out.is_meta
        if fits and tuple(out.shape) == self.shape:
            storage = out.untyped_storage()
            self._seen[storage.data_ptr()] = weakref.ref(out)  # type: ignore[assignment]
            self.most = max(self.most, sum(seen() is not None for seen in self._seen.values()))
        return out


def test_no_two_matrices_exist_unquantized_at_one_time() -> None:
    width = (TINY["intermediate_size"], TINY["hidden_size"])
    with _Alive(width) as alive:
        build(num_hidden_layers=4)
    assert alive.most == 1
    with _Alive(width) as alive:  # the measure sees what it should
        kept = [torch.empty(width) for _ in range(3)]
    assert alive.most == len(kept)


def test_a_layer_is_given_away_before_the_next_one_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    quantize = bnb.functional.quantize_4bit
    monkeypatch.setattr(
        bnb.functional, "quantize_4bit", lambda *words, **more: (made.append(1), quantize(*words, **more))[1]
    )
    given: list[tuple[Any, int]] = []
    model = build_base(
        {**TINY, "num_hidden_layers": 3},
        device=CPU,
        dtype=torch.float32,
        quantized=lambda layer: given.append((layer, len(made))),
    )
    assert given == list(zip(model.model.layers, [7, 14, 21], strict=True))


def test_a_written_checkpoint_loads_as_the_same_model(tmp_path: Path) -> None:
    write_checkpoint(TINY, tmp_path, device=CPU, dtype=torch.float32)
    loaded: Any = Transformers(str(tmp_path)).load(
        lora=None, adapter=None, device=CPU, dtype=torch.float32, seed=0
    )
    ids = torch.randint(512, (1, 40), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(build()(input_ids=ids).logits, loaded(input_ids=ids).logits)


def test_checkpointing_is_in_force_and_gives_the_same_gradients() -> None:
    ids = torch.randint(512, (1, 12), generator=torch.Generator().manual_seed(0))
    gradients = []
    for checkpointed in (False, True):
        model = add_adapters(build())
        if checkpointed:
            checkpoint_activations(model)
        ran: list[int] = []
        layer = model.get_base_model().model.layers[0].mlp
        # before, not after: what runs again stops as soon as the backward has what it needs
        layer.register_forward_pre_hook(lambda *_, ran=ran: ran.append(1))
        model(input_ids=ids, labels=ids).loss.backward()
        assert len(ran) == 1 + checkpointed
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad]))
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("kind", ["bert", "t5", "no-such-model"])
def test_what_is_no_decoder_is_said_in_a_line(kind: str) -> None:
    with pytest.raises(InputError, match=r"take another base|take a Llama-like base"):
        build_base({"model_type": kind}, device=CPU, dtype=torch.float32)
