"""The model backends, one file each, and their shared parts.

Names are imported at their first use: a backend imports transformers or Unsloth.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medqlora.models.backend import Backend
    from medqlora.models.decoder import Decoder
    from medqlora.models.lora import LoRA
    from medqlora.models.tiny_llama import TinyLlama
    from medqlora.models.tiny_vision import TinyVision
    from medqlora.models.transformers import Transformers
    from medqlora.models.unsloth import Unsloth
    from medqlora.models.unsloth_vision import UnslothVision
    from medqlora.models.vision_language import VisionLanguage

__all__ = [
    "Backend",
    "Decoder",
    "LoRA",
    "TinyLlama",
    "TinyVision",
    "Transformers",
    "Unsloth",
    "UnslothVision",
    "VisionLanguage",
]

_MODULES = {
    "Backend": "backend",
    "Decoder": "decoder",
    "LoRA": "lora",
    "TinyLlama": "tiny_llama",
    "TinyVision": "tiny_vision",
    "Transformers": "transformers",
    "Unsloth": "unsloth",
    "UnslothVision": "unsloth_vision",
    "VisionLanguage": "vision_language",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
