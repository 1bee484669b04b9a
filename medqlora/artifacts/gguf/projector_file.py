"""Writes the vision part of a model folder as a GGUF file, tensor by tensor."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from medqlora.artifacts.gguf.projector import projector_tensors, write_projector_keys
from medqlora.artifacts.gguf.writing import (
    FileType,
    announce,
    read_tensors,
    stored,
    tensor_places,
    write_metadata,
    write_origin,
)
from medqlora.artifacts.origin import Origin
from medqlora.models import hub
from medqlora.utils.files import flush

if TYPE_CHECKING:
    from gguf import GGUFWriter

#: tensors that llama.cpp adds, transposes or convolves with: they stay in float32
_EXACT = ("v.position_embd", "v.patch_embd", "v.class_embd", "mm.input_projection")


def projector_path(model: Path) -> Path:
    """The file beside a model's GGUF file: `mmproj-NAME`, the name that llama.cpp's own tools give it."""
    return model.with_name(f"mmproj-{model.name}")


def write_projector(
    folder: Path,
    path: Path,
    kind: FileType,
    metadata: Mapping[str, str | list[str]],
    *,
    origin: Origin | None = None,
) -> None:
    """Writes the vision tower and the projector of a model folder (safetensors in 16 or 32 bits).

    Args:
        folder: as `medqlora merge` writes it.
        path: the file; written aside and renamed at the end.
        kind: type of the matrices.
        metadata: further keys of the file, under names of our own.
        origin: the base model, for `general.license` and `general.base_model.*`.

    Raises:
        InputError, OSError: llama.cpp can't compute this tower; the disk is full.
    """
    import gguf

    config = hub.load_config(str(folder))
    aside = path.with_name(f".{path.name}.part")
    writer = gguf.GGUFWriter(aside, "clip")
    try:
        writer.add_type(gguf.GGUFType.MMPROJ)
        writer.add_name(path.stem)
        projector = write_projector_keys(writer, config, folder)
        write_metadata(writer, metadata)
        write_origin(writer, origin)
        # a tower has a few hundred million weights: 1 to 2 GB in memory
        tensors = [
            named
            for name, weight in read_tensors(tensor_places(folder))
            for named in projector_tensors(projector, config, name, weight)
        ]
        _write_tensors(writer, aside, [(name, weight, _kind(name, weight, kind)) for name, weight in tensors])
        writer.close()
        flush(aside)
        aside.replace(path)
    except BaseException:
        writer.close()
        aside.unlink(missing_ok=True)
        raise


def _write_tensors(writer: "GGUFWriter", aside: Path, tensors: list[tuple[str, Tensor, FileType]]) -> None:
    for name, weight, kind in tensors:
        announce(writer, name, tuple(weight.shape), kind)
    writer.write_header_to_file(aside)
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for _, weight, kind in tensors:
        writer.write_tensor_data(stored(weight, kind))


def _kind(name: str, weight: Tensor, kind: FileType) -> FileType:
    if weight.ndim < 2 or name.startswith(_EXACT):
        return "f32"
    return "f16" if kind == "q8_0" else kind
