"""Whether the base model's weights are on this machine: in a folder, in the Hub's cache, or built for the demo."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from medqlora.commands.diagnosis.finding import Finding, first_line
from medqlora.errors import InputError

_WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin.index.json")


def weights(base: Path) -> Iterator[Finding]:
    """The missing or damaged weight files of a local base model, before they are loaded."""
    missing: list[str] = []
    index = base / "model.safetensors.index.json"
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            fix = "copy or download it again"
            yield Finding("fit", "weights", "wrong", f"{index} can't be read ({first_line(error)})", fix)
            return
        missing = [name for name in names if not (base / name).is_file()]
        if missing:
            what = f"{base} lacks {len(missing)} of {len(names)} files, the first {missing[0]}"
            yield Finding("fit", "weights", "wrong", what, "copy or download the base again")
    elif not any(base.glob("*.safetensors")) and not any(base.glob("pytorch_model*.bin")):
        what = f"{base} holds no weights (model.safetensors)"
        yield Finding("fit", "weights", "wrong", what, "copy or download the base again")
        return
    if not missing:
        yield from _damaged(base)


def _damaged(base: Path) -> Iterator[Finding]:
    """Weight files that are cut off, or placeholders."""
    from medqlora.models.weight_files import check_weights

    try:
        check_weights(base)
    except InputError as error:
        what, _, fix = str(error).removeprefix("--model.backend.base: ").rpartition(": ")
        yield Finding("fit", "weights", "wrong", what, fix)


def cached(base: str, revision: str | None) -> bool:
    """Whether the Hub's cache on this machine has the base model's weights, or the list of their files."""
    from huggingface_hub import try_to_load_from_cache

    return any(
        isinstance(try_to_load_from_cache(base, name, revision=revision), str) for name in _WEIGHT_FILES
    )


def demo_base_is_built(kind: str = "tiny_llama") -> bool:
    """Whether the demo's base model of this kind is in medqlora's cache."""
    from medqlora.utils.cache import cache_folder

    with contextlib.suppress(OSError):  # the folder has a finding of its own
        return any((cache_folder() / kind).glob("[!.]*/config.json"))
    return False
