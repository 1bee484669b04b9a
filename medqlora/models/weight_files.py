"""The files of a base or adapter on this machine, checked by name, size and header before a weight is loaded.

The format of safetensors: 8 bytes with the header's length; the header as JSON; the tensors.
https://huggingface.co/docs/safetensors
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict

from medqlora.errors import InputError

#: the files of an adapter in PEFT's format
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_OPTION = "--model.backend.base"
_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
#: torch's own format, which transformers reads without safetensors; with `weights_only`, so no code runs
_TORCH_SINGLE, _TORCH_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
_LFS = b"version https://git-lfs.github.com/spec/"


class TensorEntry(TypedDict):
    """A tensor in a safetensors header: its type (`F32`, `BF16`, `U8`, …), shape, and first and last byte."""

    dtype: str
    shape: list[int]
    data_offsets: list[int]


def is_lfs_pointer(file: Path) -> bool:
    """Whether `file` is a Git LFS pointer: three lines of text instead of the content."""
    try:
        with file.open("rb") as stream:
            return stream.read(len(_LFS)) == _LFS
    except OSError:
        return False


def refuse_lfs_pointer(file: Path, option: str = _OPTION) -> None:
    """Raises InputError where `file` is a Git LFS pointer."""
    if is_lfs_pointer(file):
        raise InputError(
            f"{option}: '{file}' is a Git LFS pointer, not the file itself: run `git lfs pull` in its folder, or "
            "download it again"
        )


def read_object(file: Path, option: str = _OPTION) -> dict[str, object]:
    """A JSON file's object.

    Raises:
        InputError: the file is a Git LFS pointer, or no JSON object.
    """
    refuse_lfs_pointer(file, option)
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise InputError(f"{option}: '{file}' is not a JSON object: copy or download it again")
    return value


def named_base(folder: Path, option: str = _OPTION) -> str | None:
    """The base that an adapter's configuration names; None where it names none.

    Raises:
        InputError: as `read_object`.
    """
    base = read_object(folder / ADAPTER_CONFIG, option).get("base_model_name_or_path")
    return base if isinstance(base, str) and base else None


def read_header(file: Path, option: str = _OPTION) -> dict[str, TensorEntry]:
    """The tensors of a safetensors file, by name.

    Raises:
        InputError: the file is a Git LFS pointer, is cut short, or is no safetensors file.
    """
    refuse_lfs_pointer(file, option)
    not_whole = f"{option}: '{file}' is not a whole safetensors file"
    again = "copy or download it again"
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if size < 8 or length > size - 8:
                raise InputError(f"{not_whole}: {again}")
            header = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        end = max((int(entry["data_offsets"][1]) for entry in header.values()), default=0)
    except OSError as error:
        raise InputError(f"{option}: '{file}' can't be read ({error.strerror}): {again}") from error
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{not_whole}: {again}") from error
    if 8 + length + end != size:
        raise InputError(f"{not_whole} ({size:,} of {8 + length + end:,} bytes): {again}")
    return header


def check_weights(folder: Path, *, quantized: bool = False) -> list[Path]:
    """The weight files of a base's folder that transformers reads, each checked.

    Args:
        folder: with `config.json`.
        quantized: whether `config.json` has a `quantization_config`.

    Raises:
        InputError: a file is missing, cut short or a Git LFS pointer; there are no weights; or they are quantized and
            config.json doesn't say how.
    """
    single, index = folder / _SINGLE, folder / _INDEX
    if single.is_file() or index.is_file():
        files = [single] if single.is_file() else _shards(index)
        headers = {file: read_header(file) for file in files}
        if not quantized:
            _refuse_quantized(headers)
        return files
    if (folder / _TORCH_SINGLE).is_file():
        files = [folder / _TORCH_SINGLE]
    elif (folder / _TORCH_INDEX).is_file():
        files = _shards(folder / _TORCH_INDEX)
    else:
        raise InputError(f"{_OPTION}: {_no_weights(folder)}")
    for file in files:
        refuse_lfs_pointer(file)
    return files


def _refuse_quantized(headers: dict[Path, dict[str, TensorEntry]]) -> None:
    """Refuses quantized weights: without their scales they would be read as the weights themselves."""
    scaled = any("scale" in name.rpartition(".")[2] for header in headers.values() for name in header)
    for file, header in headers.items():
        for name, entry in header.items():
            kind = str(entry["dtype"])
            integers = kind[:1] in ("I", "U") and name.endswith(("weight", "_proj", "_blocks"))
            if integers or (scaled and kind.startswith("F8")):
                raise InputError(
                    f"{_OPTION}: '{file}': the tensor '{name}' is quantized ({kind}), and config.json has no "
                    "quantization_config: copy the base's own config.json, or take the base that isn't quantized"
                )


def _shards(index: Path) -> list[Path]:
    """The files that an index lists; none is missing."""
    listed = read_object(index).get("weight_map")
    if (
        not isinstance(listed, dict)
        or not listed
        or not all(isinstance(name, str) for name in listed.values())
    ):
        raise InputError(f"{_OPTION}: '{index}' lists no weight files: copy or download it again")
    shards = [index.parent / name for name in sorted(set(listed.values()))]
    missing = sorted(file.name for file in shards if not file.is_file())
    if missing:
        raise InputError(
            f"{_OPTION}: '{index.parent}' lacks {len(missing)} of the {len(shards)} weight files that {index.name} "
            f"lists, the first {missing[0]}: copy or download the missing files"
        )
    return shards


def _no_weights(folder: Path) -> str:
    """The folder's content instead of weights, and the fix."""
    if (folder / ADAPTER_CONFIG).is_file():
        return adapter_given_as_base(folder)
    if ggufs := _names(folder, "*.gguf"):
        return gguf_alone(str(folder), ggufs)
    if shards := _names(folder, "model-*-of-*.safetensors"):
        return (
            f"'{folder}' holds {len(shards)} weight files, the first {shards[0]}, but no {_INDEX}: copy or download "
            "that file too"
        )
    others = [name for name in _names(folder, "*.safetensors") if not name.startswith("adapter_")]
    if others:
        return (
            f"'{folder}' holds {others[0]} but no {_SINGLE}, the name that transformers reads: rename it if it holds "
            "transformers' weights, else download the base's transformers version"
        )
    for pattern in ("*.pth", "*.bin", "*.pt", "*.h5", "*.msgpack", "*.onnx", "*.npz"):
        if other := _names(folder, pattern):
            fix = "download the base in transformers' safetensors format"
            return f"'{folder}' holds {other[0]} but no {_SINGLE}: {fix}"
    return f"'{folder}' holds no weights ({_SINGLE}): copy or download the base again"


def adapter_given_as_base(folder: Path, name: str | None = None) -> str:
    """For a message: the folder (on the Hub: `name`) is an adapter; the options to give instead."""
    name = str(folder) if name is None else name
    base = named_base(folder)
    of = f" (of the base '{base}')" if base else ""
    return (
        f"'{name}' is an adapter{of}, not a base: pass --model.adapter {name} and {_OPTION} {base or 'BASE'}"
    )


def gguf_alone(name: str, files: list[str]) -> str:
    """For a message: the model has GGUF files alone."""
    return (
        f"'{name}' holds its weights as GGUF alone ({files[0]}), which can't be trained: pass the safetensors model "
        "that it was converted from, or convert it back with the Python package gguf (gguf.dequantize) and save it "
        f"as {_SINGLE} with its config.json and tokenizer"
    )


def _names(folder: Path, pattern: str) -> list[str]:
    return sorted(file.name for file in folder.glob(pattern))


def not_a_model(base: str, folder: Path) -> str:
    """For a message: why a folder without `config.json` is no base, and what to pass instead."""
    if (folder / ADAPTER_CONFIG).is_file():
        return adapter_given_as_base(folder)
    if (folder / "adapter" / ADAPTER_CONFIG).is_file():
        return adapter_given_as_base(folder / "adapter")
    if ggufs := _names(folder, "*.gguf"):
        return gguf_alone(base, ggufs)
    if inner := sorted(str(config.parent) for config in _inner_configs(folder)):
        return f"'{base}' holds no config.json: it is not a transformers model; did you mean '{inner[-1]}'?"
    if _names(folder, "*.safetensors"):
        return f"'{base}' holds weights but no config.json: copy the base's config.json and tokenizer files into it"
    return f"'{base}' holds no config.json: it is not a transformers model"


def _inner_configs(folder: Path) -> Iterator[Path]:
    """In a folder around the model's, or one of the Hub's cache."""
    yield from folder.glob("*/config.json")
    yield from folder.glob("snapshots/*/config.json")
