"""Tiny 4-bit models with adapters for the fused decoder's tests, and their losses and gradients by PEFT's forward."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medqlora.data.batching.packing import pack
from medqlora.fused import Checkpointing
from medqlora.models import Decoder, LoRA, Transformers
from medqlora.models.quantization import Quantization
from medqlora.records import Encoded

CPU = torch.device("cpu")
LAYERS = 3
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "mistral": ("mistral", {"sliding_window": 4096}),
    "qwen2": ("qwen2", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}),
    "qwen3": ("qwen3", {"head_dim": 32, "rms_norm_eps": 1e-2}),  # an epsilon that shows
    "llama3-rope": ("llama", {"rope_parameters": LLAMA3}),
    "yarn": ("llama", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}}),
    "tied": ("qwen2", {"tie_word_embeddings": True}),
    "one-head": ("llama", {"num_key_value_heads": 4, "hidden_act": "silu"}),
}
SETTINGS: list[Checkpointing] = ["none", "full", "offload", 1]


def load(
    base: Path,
    lora: LoRA | None = None,
    quantization: Quantization = "nf4",
    double_quantization: bool = True,
    dtype: torch.dtype = torch.float32,
) -> Any:
    """A model in eval mode whose adapters have an effect."""
    backend = Transformers(str(base), quantization, double_quantization, gradient_checkpointing=False)
    lora = lora or LoRA(r=5, alpha=9)
    model: Any = backend.load(lora=lora, adapter=None, device=CPU, dtype=dtype, seed=0)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return model


def examples(*shapes: tuple[int, int], seed: int = 0) -> list[Encoded]:
    """Examples of (prompt, completion) tokens; the default has completions of one token and of none."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for number, (prompt, completion) in enumerate(shapes or [(9, 4), (3, 1), (14, 6), (1, 2), (5, 0)]):
        ids = torch.randint(3, 250, (prompt + completion,), generator=generator).tolist()
        made.append(Encoded(f"q{number}", ids[:prompt], ids[prompt:]))
    return made


def gradients(model: Any, loss: Tensor) -> dict[str, Tensor]:
    """The loss's gradient for every trained parameter, by name."""
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    return dict(zip(trained, torch.autograd.grad(loss, list(trained.values())), strict=True))


def one_by_one(model: Any, chosen: list[Encoded]) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and gradients by PEFT's own forward, one pass per example."""
    decoder = Decoder(model)
    parts = [decoder.loss_sum(pack([example])) for example in chosen if example.completion]
    loss = torch.stack(parts).sum()
    return loss.detach(), gradients(model, loss)


def assert_same(ours: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 1e-5) -> None:
    """Compares gradients by their relative error in the norm."""
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        assert ours[name].dtype == torch.float32
        assert value.norm() > 0, name
        assert (ours[name] - value).norm() <= tolerance * value.norm(), name
