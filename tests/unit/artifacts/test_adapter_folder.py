"""The adapter folder is the one that PEFT itself writes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import build_base

from medqlora.artifacts.adapter_folder import save_peft_files
from medqlora.callbacks.adapter_contents import _plain
from medqlora.models import LoRA, Transformers
from medqlora.models.adapters import trainable_state


@pytest.mark.parametrize(
    ("family", "lora"),
    [("llama", LoRA(r=4)), ("llama", LoRA(r=4, use_dora=True, use_rslora=True)), ("mixtral", LoRA(r=2))],
    ids=["LoRA", "DoRA", "experts"],
)
def test_the_files_are_those_that_peft_writes(tmp_path: Path, family: str, lora: LoRA) -> None:
    changes = {"num_local_experts": 4, "num_experts_per_tok": 2} if family == "mixtral" else {}
    backend = Transformers(str(build_base(tmp_path / "base", family, **changes)), quantization="none")
    model: Any = backend.load(
        lora=lora, adapter=None, device=torch.device("cpu"), dtype=torch.float32, seed=0
    )
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    ours.mkdir()
    model.save_pretrained(str(theirs), save_embedding_layers=False)
    config = {key: _plain(value) for key, value in model.peft_config["default"].to_dict().items()}
    save_peft_files(config, trainable_state(model), ours)
    weights = "adapter_model.safetensors"
    assert (ours / weights).read_bytes() == (theirs / weights).read_bytes()
    read = [json.loads((folder / "adapter_config.json").read_text()) for folder in (ours, theirs)]
    for config in read:  # a set, whose order is another in each process
        for key in ("target_modules", "target_parameters"):
            config[key] = sorted(config[key] or ())
    assert read[0] == read[1]
