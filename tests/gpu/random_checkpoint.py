"""A checkpoint of a given shape with random weights, quantized to NF4, without ever holding it in 16 bits.

    python tests/gpu/random_checkpoint.py FOLDER TOKENIZER_FOLDER {8b|small|tiny}

The files are as bitsandbytes' own: `weight` packed, with `absmax`, `quant_map`, their nested forms and the
quantization state beside it.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from bitsandbytes.functional import quantize_4bit
from safetensors.torch import save_file
from transformers import BitsAndBytesConfig, LlamaConfig

SHAPES = {
    "8b": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
           "num_key_value_heads": 8},
    "small": {"hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 4, "num_attention_heads": 8,
              "num_key_value_heads": 4},
    "tiny": {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 8,
             "num_key_value_heads": 2},
}  # fmt: skip


def write(folder: Path, tokenizer: Path, shape: str) -> None:
    """Writes the checkpoint; the weights are normal with a standard deviation of 0.02, as Llama's begin."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16
    config = LlamaConfig(
        vocab_size=128256, rope_theta=500000.0, max_position_embeddings=8192, rms_norm_eps=1e-5, bos_token_id=128000,
        eos_token_id=128001, tie_word_embeddings=False, dtype=dtype,
        architectures=["LlamaForCausalLM"], **SHAPES[shape],
    )  # fmt: skip
    config.quantization_config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    ).to_dict()
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator(device).manual_seed(0)

    def normal(*size: int) -> torch.Tensor:
        return torch.empty(size, device=device, dtype=dtype).normal_(std=0.02, generator=generator)

    d, ff, kv = config.hidden_size, config.intermediate_size, config.num_key_value_heads * config.head_dim
    linears = {"self_attn.q_proj": (d, d), "self_attn.k_proj": (kv, d), "self_attn.v_proj": (kv, d),
               "self_attn.o_proj": (d, d), "mlp.gate_proj": (ff, d), "mlp.up_proj": (ff, d),
               "mlp.down_proj": (d, ff)}  # fmt: skip
    index: dict[str, str] = {}

    def save(number: int, tensors: dict[str, torch.Tensor]) -> None:
        name = f"model-{number:05d}-of-{config.num_hidden_layers + 1:05d}.safetensors"
        save_file(
            {key: value.cpu().contiguous() for key, value in tensors.items()}, folder / name, {"format": "pt"}
        )
        index.update(dict.fromkeys(tensors, name))

    for layer in range(config.num_hidden_layers):
        tensors = {}
        for linear, size in linears.items():
            packed, state = quantize_4bit(
                normal(*size), blocksize=64, quant_type="nf4", compress_statistics=True
            )
            key = f"model.layers.{layer}.{linear}.weight"
            tensors[key] = packed
            tensors |= {f"{key}.{name}": value for name, value in state.as_dict(packed=True).items()}
        for norm in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"model.layers.{layer}.{norm}.weight"] = torch.ones(d, dtype=dtype)
        save(layer + 1, tensors)
    ends = {"model.embed_tokens.weight": normal(128256, d), "lm_head.weight": normal(128256, d)}
    save(config.num_hidden_layers + 1, {**ends, "model.norm.weight": torch.ones(d, dtype=dtype)})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    config.save_pretrained(folder)
    for file in tokenizer.glob("tokenizer*"):
        shutil.copy(file, folder)


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
