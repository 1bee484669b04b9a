"""Mistral: https://huggingface.co/docs/transformers/model_doc/mistral."""

from medqlora.fused.families.base import FAMILIES, Family, sliding_window

FAMILIES.add("mistral", Family(window=sliding_window))
