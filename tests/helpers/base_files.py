"""Tiny bases and adapters as files: made, changed, loaded."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from medqlora.errors import InputError
from medqlora.models import LoRA, Transformers

WEIGHTS = "model.safetensors"
#: a Git LFS pointer
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d2\nsize 460640\n"


def make_adapter(base: Path, folder: Path, **changes: Any) -> Path:
    """An adapter of PEFT's for `base`, with random weights; `changes` are fields of its LoraConfig."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    settings: dict[str, Any] = {"r": 4, "target_modules": ["q_proj", "down_proj"], "task_type": "CAUSAL_LM"}
    model: Any = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base), LoraConfig(**{**settings, **changes})
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.data.add_(torch.randn_like(parameter) * 0.05)
            assert "lora_" not in name or parameter.requires_grad
    model.save_pretrained(str(folder), save_embedding_layers=False)
    return folder


def backend(base: Path, quantization: Any = "none") -> Transformers:
    return Transformers(str(base), quantization=quantization, gradient_checkpointing=False)


def load(base: Path, adapter: Path | None, quantization: Any = "none") -> Any:
    return backend(base, quantization).load(
        lora=None,
        adapter=None if adapter is None else str(adapter),
        device=torch.device("cpu"),
        dtype=torch.float32,
        seed=0,
    )


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        return model.eval()(torch.arange(5, 25)[None]).logits


def change_config(adapter: Path, **changes: Any) -> None:
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def check(base: Path | str, quantization: Any = "nf4") -> Transformers:
    """What every command does before it loads."""
    backend = Transformers(str(base), quantization=quantization, gradient_checkpointing=False)
    backend.check(LoRA(r=4), device=torch.device("cpu"), precision="32-true")
    backend.check_files()
    backend.tokenizer()
    backend.identity()
    return backend


def refused(base: Path | str) -> str:
    with pytest.raises(InputError) as caught:
        check(base)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("--model.backend.base: ")
    return str(caught.value)


def change(file: Path, **changes: Any) -> None:
    values = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({name: value for name, value in values.items() if value is not None}))


def shard(base: Path) -> list[Path]:
    """The base's weights in three files and their index, as a large model has them."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base)
    (base / WEIGHTS).unlink()
    model.save_pretrained(base, max_shard_size="200KB")
    return sorted(base.glob("model-*.safetensors"))


def save(base: Path, tensors: dict[str, torch.Tensor]) -> None:
    save_file(tensors, base / WEIGHTS, metadata={"format": "pt"})
