"""Qwen3: https://huggingface.co/docs/transformers/model_doc/qwen3."""

from medqlora.fused.families.base import FAMILIES, Family, sliding_window

FAMILIES.add("qwen3", Family(head_norms=True, window=sliding_window))
