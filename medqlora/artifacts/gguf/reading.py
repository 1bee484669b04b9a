"""What a GGUF file says of itself."""

from pathlib import Path
from typing import NamedTuple

from medqlora.errors import InputError

#: llama.cpp's number of a file type → bits of a weight that decide the tolerance; others have fewer
_BITS = {0: 32, 1: 16, 7: 8, 32: 16}

_NOT_NAMED = "not named"


class GGUFInfo(NamedTuple):
    """Keys of a GGUF file.

    Attributes:
        bits: of a weight, as in `medqlora.evaluation.verification.TOLERANCE`.
        adapter_sha256: digest of the weights of the adapter that it was made from; None in files of others.
        architecture: llama.cpp's name of the model family.
        quantization: llama.cpp's name of the quantization that most weights have.
    """

    bits: int
    adapter_sha256: str | None
    architecture: str
    quantization: str


def read_info(path: Path, option: str) -> GGUFInfo:
    """Reads a file's keys; the weights are not read.

    Args:
        path: the file.
        option: the option that named it, for messages.

    Raises:
        InputError: it is no GGUF file, or a part of one.
    """
    import gguf

    try:
        fields = gguf.GGUFReader(path).fields
    except (ValueError, OSError, IndexError, KeyError, OverflowError, MemoryError) as error:
        raise InputError(
            f"{option} {path}: it is no complete GGUF file: copy it, or export it, again"
        ) from error
    kind, digest = fields.get("general.file_type"), fields.get("medqlora.adapter_sha256")
    architecture = fields.get("general.architecture")
    return GGUFInfo(
        16 if kind is None else _BITS.get(int(kind.contents()), 4),
        None if digest is None else str(digest.contents()),
        _NOT_NAMED if architecture is None else str(architecture.contents()),
        _NOT_NAMED if kind is None else _file_type(int(kind.contents())),
    )


def _file_type(number: int) -> str:
    """The name of a `general.file_type`: "Q4_K_M", "F16"; the number where this version of gguf knows none."""
    import gguf

    try:
        return gguf.LlamaFileType(number).name.removeprefix("MOSTLY_").removeprefix("ALL_")
    except ValueError:
        return f"file type {number}"
