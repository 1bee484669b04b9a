"""What an export of a vision-language model has beside a text model's: its vision tower, and questions with images."""

from pathlib import Path
from typing import TYPE_CHECKING, cast

from medqlora.artifacts.gguf.projector import check_projector
from medqlora.artifacts.gguf.projector_file import projector_path
from medqlora.artifacts.gguf.writing import FileType
from medqlora.errors import InputError
from medqlora.records import Encoded

if TYPE_CHECKING:
    from transformers import PretrainedConfig

SCALING = "How llama.cpp scales images: the compared ones had the vision tower's own size."
#: `model_type` -> a fault of llama.cpp itself, as of 2026-10
KNOWN_FAULTS = {
    "llava": "llama.cpp puts the class token of LLaVA's vision tower behind the patches (its issue 25814), which "
    "changes its answers"
}


def check_vision(to: str, out: Path, config: "PretrainedConfig", folder: Path) -> None:
    """Refuses what has no place for a vision tower, and towers that can't be written.

    Args:
        to: gguf, gguf-lora or ollama.
        out: the GGUF file, or the folder for it.
        config: the base's.
        folder: with the base's files.

    Raises:
        InputError: names the option and the fix.
    """
    if to != "gguf":
        raise InputError(
            f"--to {to}: the adapter belongs to a vision-language base, and --to gguf alone writes its vision tower: "
            "use --to gguf"
        )
    beside = projector_path(out)
    if beside.exists():
        raise InputError(f"--out {out}: {beside}, the file of its vision tower, exists: name another file")
    check_projector(config, folder)


def text_alone(example: Encoded) -> list[int]:
    """The prompt without its image tokens."""
    prompt = list(example.prompt)
    for slot in reversed(example.images):
        del prompt[slot.begin : slot.end]
    return prompt


def tower_type(kind: str) -> FileType:
    """The type of a vision tower beside a language model of type `kind`: it is never quantized."""
    return cast(FileType, kind) if kind in ("f32", "f16", "bf16") else "f16"
