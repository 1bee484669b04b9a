"""Adapters: their folders, their sources, and whether they fit a base. Importing it needs no torch."""

from medqlora.models.adapters.base import base_of, base_remark, check_adapter_base
from medqlora.models.adapters.folder import (
    RECORD_FILE,
    TEST_QUESTIONS,
    adapter_config,
    read_adapter,
    read_merged,
    reject_quantization_made_up,
)
from medqlora.models.adapters.source import find_adapter
from medqlora.models.adapters.state import save_adapter, trainable_state

__all__ = [
    "RECORD_FILE",
    "TEST_QUESTIONS",
    "adapter_config",
    "base_of",
    "base_remark",
    "check_adapter_base",
    "find_adapter",
    "read_adapter",
    "read_merged",
    "reject_quantization_made_up",
    "save_adapter",
    "trainable_state",
]
