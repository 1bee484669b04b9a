"""Tiny random vision-language bases: fakes of size, not of kind."""

import json
from pathlib import Path
from typing import Any

FAMILIES = ("llava", "qwen2_5_vl", "qwen3_vl", "gemma3")
_QWEN = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
_TOKENS = {
    "llava": ["<image>"],
    "qwen2_vl": _QWEN,
    "qwen2_5_vl": _QWEN,
    "qwen3_vl": _QWEN,
    "gemma3": ["<start_of_image>", "<end_of_image>", "<image_soft_token>"],
}
_TEXT: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 2048,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
    "tie_word_embeddings": False,
}


def _sizes(family: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Changes of the text configuration, the vision configuration, and the image processor's file."""
    mean = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "do_convert_rgb": True}
    if family == "llava":
        vision = {"model_type": "clip_vision_model", "hidden_size": 32, "intermediate_size": 64}
        vision |= {"num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 32, "patch_size": 8}
        square = {"height": 32, "width": 32}
        processor = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 32}}
        return {"model_type": "llama"}, vision, {**processor, "crop_size": square, **mean}
    if family == "gemma3":
        vision = {"model_type": "siglip_vision_model", "hidden_size": 32, "intermediate_size": 64}
        vision |= {"num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 32, "patch_size": 8}
        processor = {"image_processor_type": "Gemma3ImageProcessor", "size": {"height": 32, "width": 32}}
        text = {"model_type": "gemma3_text", "sliding_window": 64, "query_pre_attn_scalar": 16}
        return text, vision, {**processor, **mean}
    vision = {"hidden_size": 32, "intermediate_size": 64, "depth": 2, "num_heads": 4, "patch_size": 4}
    vision |= {"out_hidden_size": 64, "spatial_merge_size": 2, "temporal_patch_size": 2}
    vision |= {"window_size": 16, "fullatt_block_indexes": [1]} if family == "qwen2_5_vl" else {}
    vision |= (
        {"deepstack_visual_indexes": [0, 1], "num_position_embeddings": 64} if family == "qwen3_vl" else {}
    )
    if family == "qwen2_vl":  # the tower's own width has another name
        vision |= {"embed_dim": 32, "mlp_ratio": 2, "hidden_size": 64}
        vision = {key: vision[key] for key in vision if key not in ("intermediate_size", "out_hidden_size")}
    limits = {"shortest_edge": 64, "longest_edge": 1024}
    processor = {"image_processor_type": "Qwen2VLImageProcessor", "size": limits, "patch_size": 4}
    processor |= {"merge_size": 2, "temporal_patch_size": 2}
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}
    return {"rope_parameters": rope}, vision, {**processor, **mean}


def build_vision_base(folder: Path, family: str, seed: int = 0, *, published: bool = False) -> Path:
    """A folder with a random vision-language model of `family`, its tokenizer and image processor.

    Args:
        published: whether a Qwen has the published patches, windows and sizes of images: llama.cpp knows no others.
    """
    import torch
    from tiny import build_tokenizer
    from transformers import AutoConfig, AutoModelForImageTextToText

    tokenizer = build_tokenizer(["MEDICAL QUESTION: is there an effusion?\nANSWER: yes."], 500)
    names = _TOKENS[family]
    tokenizer.add_special_tokens({"additional_special_tokens": names})
    ids = dict(zip(names, tokenizer.convert_tokens_to_ids(names), strict=True))
    text, vision, processor = _sizes(family)
    if published:
        windows = {"window_size": 112} if family == "qwen2_5_vl" else {}
        vision = {**vision, "patch_size": 14, **windows}
        processor |= {
            "patch_size": 14,
            "size": {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 1280},
        }
    fields: dict[str, Any] = {"text_config": {**_TEXT, "vocab_size": len(tokenizer), **text}}
    fields["vision_config"] = vision
    fields["tie_word_embeddings"] = False
    if family == "llava":
        fields |= {"image_token_index": ids["<image>"], "image_seq_length": 16}
    elif family == "gemma3":
        fields |= {"image_token_index": ids["<image_soft_token>"], "mm_tokens_per_image": 4}
        fields |= {"boi_token_index": ids["<start_of_image>"], "eoi_token_index": ids["<end_of_image>"]}
    else:
        fields |= {"image_token_id": ids["<|image_pad|>"], "video_token_id": ids["<|video_pad|>"]}
        fields |= {"vision_start_token_id": ids["<|vision_start|>"]}
        fields |= {"vision_end_token_id": ids["<|vision_end|>"]}
    config = AutoConfig.for_model(family, **fields)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForImageTextToText.from_config(config, dtype=torch.float32)
        for parameter in model.parameters():
            parameter.data.add_(torch.randn_like(parameter) * 0.05)
        model.get_output_embeddings().weight.data.normal_(std=0.5)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def write_image(path: Path, seed: int = 0, size: tuple[int, int] = (48, 40)) -> Path:
    """A picture of random blocks as PNG, (width, height) pixels."""
    import numpy as np
    from PIL import Image

    blocks = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    Image.fromarray(blocks).resize(size, Image.Resampling.NEAREST).save(path)
    return path
