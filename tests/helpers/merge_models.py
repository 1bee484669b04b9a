"""Live 4-bit models with random adapters, for tests of merging and export."""

from pathlib import Path
from typing import Any

import torch

from medqlora.models import LoRA, Transformers


def live_model(base: Path, quantization: str = "nf4", **lora: Any) -> Any:
    """The 4-bit model with adapters whose weights are all random, B too."""
    backend = Transformers(str(base), quantization, gradient_checkpointing=False)
    model: Any = backend.load(
        lora=LoRA(r=4, alpha=6, **lora), adapter=None, device=torch.device("cpu"), dtype=torch.float32, seed=0
    )
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and "magnitude" not in name:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
        elif parameter.requires_grad:
            parameter.data.mul_(1 + 0.1 * torch.rand(parameter.shape, generator=generator))
    return model.eval()


def saved(model: Any, folder: Path) -> Path:
    model.save_pretrained(str(folder), save_embedding_layers=False)
    return folder
