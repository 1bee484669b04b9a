"""An adapter with random weights for a Llama checkpoint's folder: LoRA r=16 on all seven projections.

    python tests/gpu/random_adapter.py FOLDER BASE [SEED]

It is written from the shapes alone, without loading the base model, and carries a record as of a run in bf16-mixed.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

RANK = 16


def write(folder: Path, base: Path, seed: int = 0) -> None:
    """Writes the adapter; B is not zero, as after some steps."""
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    d, ff = config["hidden_size"], config["intermediate_size"]
    kv = config["num_key_value_heads"] * d // config["num_attention_heads"]
    sizes = {"self_attn.q_proj": (d, d), "self_attn.k_proj": (kv, d), "self_attn.v_proj": (kv, d),
             "self_attn.o_proj": (d, d), "mlp.gate_proj": (ff, d), "mlp.up_proj": (ff, d),
             "mlp.down_proj": (d, ff)}  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for layer in range(config["num_hidden_layers"]):
        for name, (outputs, inputs) in sizes.items():
            key = f"base_model.model.model.layers.{layer}.{name}"
            tensors[f"{key}.lora_A.weight"] = torch.empty(RANK, inputs).normal_(std=0.02, generator=generator)
            tensors[f"{key}.lora_B.weight"] = torch.empty(outputs, RANK).normal_(
                std=0.01, generator=generator
            )
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
    adapter = {
        "base_model_name_or_path": str(base.absolute()), "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK,
        "lora_alpha": 2 * RANK, "lora_dropout": 0.0, "bias": "none", "inference_mode": True,
        "target_modules": [name.rpartition(".")[2] for name in sizes],
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(adapter))
    record = {
        "backend": "Transformers", "backend_options": {"quantization": "nf4"}, "prompt": {"name": "medical"},
        "data": {"max_prompt_tokens": 1024, "with_contexts": True}, "labels": ["yes", "no", "maybe"],
        "training": {"precision": "bf16-mixed"},
    }  # fmt: skip
    (folder / "medqlora.json").write_text(json.dumps(record))


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 0)
