"""A Qwen2.5-VL or LLaVA checkpoint with random weights: NF4 in the language model's layers, 16 bits elsewhere.

    python tests/gpu/vision_checkpoint.py FOLDER TOKENIZER_FOLDER {qwen-7b|qwen-tiny|llava-7b|llava-tiny}

The files are as bitsandbytes' own, and the model never exists in 16 bits. The tokenizer is another model's, with the
family's special tokens added.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.functional import quantize_4bit
from safetensors.torch import save_file
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoTokenizer,
    BitsAndBytesConfig,
    PretrainedConfig,
)

from medqlora.models.layers import linear_layers
from medqlora.models.vision.parts import outside_linear

TOKENS = {
    "qwen": ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"],
    "llava": ["<image>"],
}
TEXT: dict[str, dict[str, Any]] = {
    "qwen-7b": {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "vocab_size": 152064,
                "num_attention_heads": 28, "num_key_value_heads": 4},
    "qwen-tiny": {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "vocab_size": 128512,
                  "num_attention_heads": 4, "num_key_value_heads": 2},
    "llava-7b": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "vocab_size": 128512,
                 "num_attention_heads": 32, "num_key_value_heads": 32},
    "llava-tiny": {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "vocab_size": 128512,
                   "num_attention_heads": 4, "num_key_value_heads": 4},
}  # fmt: skip
VISION: dict[str, dict[str, Any]] = {
    "qwen-7b": {"hidden_size": 1280, "intermediate_size": 3420, "depth": 32, "num_heads": 16, "patch_size": 14,
                "out_hidden_size": 3584, "window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31]},
    "qwen-tiny": {"hidden_size": 64, "intermediate_size": 128, "depth": 2, "num_heads": 4, "patch_size": 14,
                  "out_hidden_size": 128, "window_size": 112, "fullatt_block_indexes": [1]},
    "llava-7b": {"model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096,
                 "num_hidden_layers": 24, "num_attention_heads": 16, "image_size": 336, "patch_size": 14},
    "llava-tiny": {"model_type": "clip_vision_model", "hidden_size": 64, "intermediate_size": 128,
                   "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 56, "patch_size": 14},
}  # fmt: skip
MEAN = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}


def write(folder: Path, tokenizer_folder: Path, shape: str) -> None:
    """Writes the checkpoint; matrices are normal with a standard deviation of 0.02."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    names = TOKENS[shape.partition("-")[0]]
    tokenizer.add_special_tokens({"additional_special_tokens": names})
    tokenizer.save_pretrained(folder)
    ids = dict(zip(names, tokenizer.convert_tokens_to_ids(names), strict=True))
    config, processor = _qwen(shape, ids) if shape.startswith("qwen") else _llava(shape, ids)
    (folder / "preprocessor_config.json").write_text(json.dumps({**processor, **MEAN}))
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16)
    config.quantization_config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=outside_linear(model),
    ).to_dict()
    config.architectures = [type(model).__name__]
    config.save_pretrained(folder)
    _write_weights(folder, model, device)


def _write_weights(folder: Path, model: torch.nn.Module, device: str) -> None:
    """A file for about every 2 GiB."""
    quantized = {f"{name}.weight" for name in linear_layers(model)}
    generator = torch.Generator(device).manual_seed(0)
    index: dict[str, str] = {}
    held: dict[str, Tensor] = {}

    def flush() -> None:
        name = f"model-{len(set(index.values())) + 1:05d}.safetensors"
        save_file(held, folder / name, {"format": "pt"})
        index.update(dict.fromkeys(held, name))
        held.clear()

    for name, weight in model.state_dict().items():
        if weight.ndim == 1:
            fill = torch.zeros if name.endswith("bias") or "embed" in name else torch.ones
            made = {name: fill(weight.shape, dtype=torch.bfloat16)}
        else:
            values = torch.empty(weight.shape, device=device, dtype=torch.bfloat16)
            values.normal_(std=0.02, generator=generator)
            made = {name: values}
            if name in quantized:
                packed, state = quantize_4bit(
                    values, blocksize=64, quant_type="nf4", compress_statistics=True
                )
                parts = state.as_dict(packed=True)
                made = {name: packed, **{f"{name}.{part}": value for part, value in parts.items()}}
        held.update({key: value.cpu().contiguous() for key, value in made.items()})
        if sum(value.nbytes for value in held.values()) > 2 << 30:
            flush()
    flush()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


def _text(shape: str) -> dict[str, Any]:
    return {"max_position_embeddings": 32768, "bos_token_id": 128000, "eos_token_id": 128001,
            "pad_token_id": 128001, "tie_word_embeddings": False, **TEXT[shape]}  # fmt: skip


def _qwen(shape: str, ids: dict[str, int]) -> tuple[PretrainedConfig, dict[str, Any]]:
    text = _text(shape)
    half = text["hidden_size"] // text["num_attention_heads"] // 2
    sections = [half // 4, half * 3 // 8, half - half // 4 - half * 3 // 8]
    rope = {"rope_type": "default", "mrope_section": sections, "rope_theta": 1_000_000.0}
    config = AutoConfig.for_model(
        "qwen2_5_vl",
        text_config={**text, "rope_parameters": rope},
        vision_config={"spatial_merge_size": 2, "temporal_patch_size": 2, **VISION[shape]},
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=False,
        dtype=torch.bfloat16,
    )
    limits = {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 1280}
    kind = {"image_processor_type": "Qwen2VLImageProcessor", "size": limits, "do_convert_rgb": True}
    return config, {**kind, "patch_size": 14, "merge_size": 2, "temporal_patch_size": 2}


def _llava(shape: str, ids: dict[str, int]) -> tuple[PretrainedConfig, dict[str, Any]]:
    vision = VISION[shape]
    config = AutoConfig.for_model(
        "llava",
        text_config={"model_type": "llama", **_text(shape)},
        vision_config=vision,
        image_token_index=ids["<image>"],
        image_seq_length=(vision["image_size"] // vision["patch_size"]) ** 2,
        vision_feature_layer=-2,
        tie_word_embeddings=False,
        dtype=torch.bfloat16,
    )
    side = vision["image_size"]
    kind = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": side}}
    return config, {**kind, "crop_size": {"height": side, "width": side}, "do_convert_rgb": True}


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
