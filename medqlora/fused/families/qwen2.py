"""Qwen2 and Qwen2.5: https://huggingface.co/docs/transformers/model_doc/qwen2."""

from medqlora.fused.families.base import FAMILIES, Family, sliding_window

FAMILIES.add("qwen2", Family(qkv_bias=True, window=sliding_window))
