"""The identity of a base: equal for copies of one, different for any two others."""

import hashlib
import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from medqlora.errors import InputError
from medqlora.models.hub.location import is_local, resolve
from medqlora.models.weight_files import ADAPTER_WEIGHTS, read_object, refuse_lfs_pointer

#: bytes read of each tensor
_SAMPLE_BYTES = 1 << 16


@lru_cache(maxsize=4)
def identity(base: str, revision: str | None = None) -> str:
    """The Hub's name and revision, or a digest of a folder's configuration and weights.

    A folder may be moved or renamed: the digest covers its `config.json` and the beginning of every tensor. The
    beginning of every file would not do: an adapter merged into a base leaves the embedding, which comes first.

    Raises:
        InputError: there is no such folder, or a weight file in it is not whole.
    """
    path = resolve(base)
    if path == base and not is_local(base):
        return base if revision is None else f"{base}@{revision}"
    folder = Path(path)
    digest = hashlib.sha256()
    config = read_object(folder / "config.json")
    for key in ("_name_or_path", "transformers_version"):
        config.pop(key, None)
    digest.update(json.dumps(config, sort_keys=True).encode())
    for file in sorted([*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")]):
        if file.name == ADAPTER_WEIGHTS:  # an adapter beside the base is no part of it
            continue
        refuse_lfs_pointer(file)
        digest.update(f"{file.name} {file.stat().st_size} ".encode())
        for piece in _samples(file):
            digest.update(piece)
    return f"sha256:{digest.hexdigest()[:32]}"


def _samples(file: Path) -> Iterator[bytes]:
    """Parts that differ between weight files of one name and size, without reading them completely."""
    with file.open("rb") as stream:
        if file.suffix == ".bin":
            # torch's zip ends with its index, which holds a checksum of every tensor
            stream.seek(max(0, file.stat().st_size - (1 << 20)))
            yield stream.read()
            return
        size = int.from_bytes(stream.read(8), "little")
        index = stream.read(min(size, file.stat().st_size))
        try:
            tensors = json.loads(index)
        except ValueError as error:
            raise InputError(
                f"--model.backend.base: '{file}' is not a whole safetensors file: copy or download it again"
            ) from error
        yield index
        for name in sorted(tensors.keys() - {"__metadata__"}):
            start, end = tensors[name]["data_offsets"]
            stream.seek(8 + size + start)
            yield stream.read(min(end - start, _SAMPLE_BYTES))
