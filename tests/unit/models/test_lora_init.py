"""LoftQ and EVA: what they start from, and where such an adapter is refused."""

from pathlib import Path
from typing import Any

import bitsandbytes
import pytest
import torch
from fused_models import examples
from safetensors import safe_open

from medqlora.errors import InputError
from medqlora.models import LoRA, Transformers
from medqlora.models.adapters import reject_quantization_made_up
from medqlora.models.lora_init import init_eva

CPU = torch.device("cpu")


def loaded(base: Path, **lora: Any) -> tuple[Any, dict[str, Any]]:
    """A model with new adapters, and its adapted layers."""
    backend = Transformers(str(base), "nf4", gradient_checkpointing=False)
    options = LoRA(r=4, alpha=12, **lora)
    backend.check(options, device=CPU, precision="32-true")
    model = backend.load(lora=options, adapter=None, device=CPU, dtype=torch.float32, seed=0)
    return model, {name: each for name, each in model.named_modules() if hasattr(each, "lora_A")}


def test_loftq_starts_at_the_best_approximation_of_the_quantization_error(
    tiny_bases: dict[str, Path],
) -> None:
    _, layers = loaded(tiny_bases["llama"], init="loftq")
    assert len(layers) == 14
    with safe_open(tiny_bases["llama"] / "model.safetensors", framework="pt") as file:
        for name, layer in layers.items():
            weight = file.get_tensor(f"{name.removeprefix('base_model.model.')}.weight")
            stored = layer.base_layer.weight
            error = weight - bitsandbytes.functional.dequantize_4bit(stored.data, stored.quant_state)
            update = layer.get_delta_weight("default").detach()
            # Eckart and Young: what is left are the singular values from the fifth on
            values = torch.linalg.svdvals(error)
            assert float((error - update).norm()) == pytest.approx(float(values[4:].norm()), rel=1e-3)
            assert {parts["default"].weight.dtype for parts in (layer.lora_A, layer.lora_B)} == {
                torch.float32
            }


def test_loftq_needs_the_weights_before_quantization(tiny_bases: dict[str, Path]) -> None:
    for backend, told in (
        (Transformers(str(tiny_bases["llama"]), "int8"), "makes up for 4-bit quantization"),
        (Transformers(str(tiny_bases["llama"]), "none", allow_unquantized=True), "makes up for 4-bit"),
    ):
        with pytest.raises(InputError, match=told):
            backend.check(LoRA(init="loftq"), device=CPU, precision="32-true")


@pytest.mark.filterwarnings("ignore:.*EVA.*")
def test_eva_starts_at_the_main_directions_of_a_layers_inputs(tiny_bases: dict[str, Path]) -> None:
    model, layers = loaded(tiny_bases["llama"], init="eva")
    chosen = examples((9, 4), (12, 6), (14, 6), (11, 2))
    first = next(iter(layers.values()))
    seen: list[torch.Tensor] = []
    handle = first.register_forward_hook(lambda module, given, output: seen.append(given[0].detach()))
    with torch.no_grad():
        for example in chosen:
            model(input_ids=torch.tensor([[*example.prompt, *example.completion]]))
    handle.remove()
    init_eva(model, chosen, 2, 0)
    inputs = torch.cat([part.flatten(0, 1) for part in seen])
    _, _, directions = torch.linalg.svd(inputs - inputs.mean(0), full_matrices=False)
    a = first.lora_A["default"].weight.detach()
    assert a.shape == (4, inputs.shape[1])
    overlap = torch.linalg.svdvals(directions[:4] @ a.T)
    assert overlap.min() > 0.95  # the same four-dimensional space, up to PEFT's incremental decomposition
    assert all(float(layer.lora_B["default"].weight.detach().norm()) == 0 for layer in layers.values())
    assert model.peft_config["default"].init_lora_weights is True


def test_an_adapter_of_loftq_stands_on_its_quantized_base_alone() -> None:
    reject_quantization_made_up({"lora": {"init": "default"}}, "--onto x")
    with pytest.raises(InputError, match=r"--onto x: the adapter was initialised by LoftQ"):
        reject_quantization_made_up({"lora": {"init": "loftq"}}, "--onto x")
