"""Llama: https://huggingface.co/docs/transformers/model_doc/llama."""

from typing import TYPE_CHECKING

from medqlora.fused.families.base import FAMILIES, Family

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def _obstacle(config: "PretrainedConfig") -> str | None:
    """Older configurations slice their products over `pretraining_tp` parts."""
    parts = getattr(config, "pretraining_tp", 1)
    return None if parts == 1 else f"its pretraining_tp is {parts}"


FAMILIES.add("llama", Family(obstacle=_obstacle))
