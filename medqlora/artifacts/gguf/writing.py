"""A merged model as one GGUF file, written tensor by tensor."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from safetensors import safe_open
from torch import Tensor

from medqlora.artifacts.gguf.architecture import (
    gguf_name,
    in_gguf_order,
    rope_factors,
    shape_of,
    tensor_names,
    text_name,
    write_shape,
)
from medqlora.artifacts.gguf.vocabulary import write_vocabulary
from medqlora.artifacts.origin import Origin
from medqlora.errors import InputError
from medqlora.models import hub
from medqlora.utils.files import flush

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType, GGUFWriter

FileType = Literal["f32", "f16", "bf16", "q8_0"]


def check_installed(option: str = "--to gguf") -> None:
    """Raises InputError where the `gguf` package is missing; `option` is what needs it."""
    from importlib.util import find_spec

    if find_spec("gguf") is None:
        raise InputError(f"{option}: the package gguf is not installed: `pip install -e '.[gguf]'`")


def write_gguf(
    folder: Path,
    path: Path,
    kind: FileType,
    metadata: Mapping[str, str | list[str]],
    *,
    origin: Origin | None = None,
    pre_tokenizer: str | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Writes a model folder (safetensors in 16 or 32 bits) as a GGUF file.

    Args:
        folder: as `medqlora merge` writes it.
        path: the file; written aside and renamed at the end.
        kind: type of the matrices; vectors stay in f32.
        metadata: further keys of the file, under names of our own.
        origin: the base model, for `general.license` and `general.base_model.*`.
        pre_tokenizer: see `write_vocabulary`.
        progress: called with the number of finished tensors and of all.

    Raises:
        InputError, OSError: GGUF can't hold this model or tokenizer; the disk is full.
    """
    import gguf

    complete = hub.load_config(str(folder))
    shape, config = shape_of(complete, str(folder)), complete.get_text_config()
    names = tensor_names(shape)
    aside = path.with_name(f".{path.name}.part")
    writer = gguf.GGUFWriter(aside, shape.architecture)
    try:
        _write_kind(writer, path, kind)
        write_shape(writer, config, shape)
        write_vocabulary(writer, folder, config.vocab_size, pre_tokenizer)
        write_metadata(writer, metadata)
        write_origin(writer, origin)
        extra = rope_factors(config)
        tensors = {name: place for name, place in tensor_places(folder).items() if text_name(complete, name)}
        if extra is not None:
            announce(writer, "rope_freqs.weight", tuple(extra.shape), "f32")
        for name, (_, size) in tensors.items():
            announce(writer, gguf_name(names, str(text_name(complete, name))), size, type_of(size, kind))
        writer.write_header_to_file(aside)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        if extra is not None:
            writer.write_tensor_data(stored(extra, "f32"))
        for done, (name, tensor) in enumerate(read_tensors(tensors), 1):
            writer.write_tensor_data(
                stored(in_gguf_order(name, tensor, shape), type_of(tuple(tensor.shape), kind))
            )
            progress(done, len(tensors))
        writer.close()
        flush(aside)
        aside.replace(path)
    except BaseException:
        writer.close()
        aside.unlink(missing_ok=True)
        raise


def _write_kind(writer: "GGUFWriter", path: Path, kind: FileType) -> None:
    """Writes what the file is: a model of this name and type."""
    import gguf

    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(path.stem)
    writer.add_file_type(int(gguf.LlamaFileType[_FILE_TYPE[kind]]))
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def write_metadata(writer: "GGUFWriter", metadata: Mapping[str, str | list[str]]) -> None:
    """Writes further keys: texts and lists of texts."""
    for key, value in metadata.items():
        if isinstance(value, str):
            writer.add_string(key, value)
        else:
            writer.add_array(key, value)


def write_origin(writer: "GGUFWriter", origin: Origin | None) -> None:
    """Writes llama.cpp's own keys for licence and base model; nothing without an origin."""
    if origin is None:
        return
    identifier, name, link = origin.license
    if identifier is not None:
        writer.add_license(identifier)
    if name is not None:
        writer.add_license_name(name)
    if link is not None:
        writer.add_license_link(link)
    writer.add_base_model_count(1)
    writer.add_base_model_name(0, origin.repository[1] if origin.repository else Path(origin.name).name)
    if origin.revision is not None:
        writer.add_base_model_version(0, origin.revision)
    if origin.repository is not None:
        writer.add_base_model_organization(0, origin.repository[0])
        writer.add_base_model_repo_url(0, f"https://huggingface.co/{origin.name}")
    writer.add_base_model_description(0, f"sha256 of its files: {origin.sha256}")


_FILE_TYPE = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "bf16": "MOSTLY_BF16", "q8_0": "MOSTLY_Q8_0"}


def type_of(size: tuple[int, ...], kind: FileType) -> FileType:
    """How a tensor is stored: vectors in f32, and rows that q8_0's blocks of 32 don't divide in f16."""
    if len(size) < 2:
        return "f32"
    return "f16" if kind == "q8_0" and size[-1] % 32 else kind


def _quantization(kind: FileType) -> "GGMLQuantizationType":
    import gguf

    return gguf.GGMLQuantizationType[kind.upper()]


def announce(writer: "GGUFWriter", name: str, size: tuple[int, ...], kind: FileType) -> None:
    """Writes a tensor's name, shape and type; the data follow after all of these."""
    import gguf

    chosen = _quantization(kind)
    block, block_bytes = gguf.GGML_QUANT_SIZES[chosen]
    count = int(np.prod(size))
    # the writer takes shapes in elements, whatever the type
    writer.add_tensor_info(name, size, np.dtype(np.float32), count // block * block_bytes, raw_dtype=chosen)


def stored(tensor: Tensor, kind: FileType) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    """The tensor's data in a type."""
    import gguf

    return gguf.quants.quantize(tensor.float().contiguous().numpy(), _quantization(kind))


def tensor_places(folder: Path) -> dict[str, tuple[Path, tuple[int, ...]]]:
    """Tensor name -> its file and shape."""
    found: dict[str, tuple[Path, tuple[int, ...]]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as held:
            for name in held.keys():  # noqa: SIM118  # no mapping
                found[name] = (file, tuple(held.get_slice(name).get_shape()))
    return found


def read_tensors(places: Mapping[str, tuple[Path, tuple[int, ...]]]) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of each, read one by one."""
    for name, (file, _) in places.items():
        with safe_open(file, framework="pt") as held:
            yield name, held.get_tensor(name)
