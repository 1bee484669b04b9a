"""A model folder written shard by shard, which a killed process leaves such that the same command goes on.

Shards are written into a hidden folder beside the output and renamed to it at the end. A finished shard is recorded
with its digest in `progress.json`, together with what the output is made from.
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict, cast

from safetensors.torch import save_file
from torch import Tensor

from medqlora.utils.digests import FileDigest, file_digest
from medqlora.utils.files import disk_errors_of_rust, write_text
from medqlora.utils.types import Json

#: bytes of a shard, at most, unless one tensor is larger
SHARD_BYTES = 1 << 30
_PROGRESS = "progress.json"
INDEX = "model.safetensors.index.json"


class _Shard(TypedDict):
    dtype: str
    file: FileDigest
    figures: dict[str, float]


class _State(TypedDict):
    made_from: dict[str, Json]
    dtype: str | None
    shards: dict[str, _Shard]


def shards_of(
    shapes: Mapping[str, tuple[int, ...]], item_bytes: int, limit: int = SHARD_BYTES
) -> list[list[str]]:
    """Tensor names by shard, in order.

    Args:
        shapes: of all tensors.
        item_bytes: bytes of a value.
        limit: bytes of a shard.
    """
    shards: list[list[str]] = [[]]
    size = 0
    for name, shape in shapes.items():
        count = item_bytes * _count(shape)
        if shards[-1] and size + count > limit:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += count
    return shards


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for length in shape:
        count *= length
    return count


def partial_folder(folder: Path) -> Path:
    """The hidden folder in which an output is made."""
    return folder.with_name(f".{folder.name}.merging")


class ShardedFolder:
    """The output folder while it is made.

    Args:
        folder: where the output goes; it does not exist, or is empty.
        made_from: what decides the output's bytes, as JSON values. Shards of another output are removed.
    """

    def __init__(self, folder: Path, made_from: Mapping[str, Json]) -> None:
        self.folder = folder
        self.partial = partial_folder(folder)
        state = _read(self.partial / _PROGRESS)
        if state is None or state["made_from"] != json.loads(json.dumps(made_from)):
            shutil.rmtree(self.partial, ignore_errors=True)
            state = {"made_from": dict(made_from), "dtype": None, "shards": {}}
        self._state = state
        self.partial.mkdir(parents=True, exist_ok=True)
        self._save()

    @property
    def dtype(self) -> str | None:
        """The data type that was decided on before the process was killed; None before the decision."""
        return self._state["dtype"]

    def decide(self, dtype: str) -> None:
        """Records the data type: a process that goes on does not decide again."""
        self._state["dtype"] = dtype
        self._save()

    def is_done(self, name: str, dtype: str) -> bool:
        """Whether a shard is finished in this data type, and its file is as it was written."""
        record = self._state["shards"].get(name)
        path = self.partial / name
        return (
            record is not None
            and record["dtype"] == dtype
            and path.is_file()
            and file_digest(path) == record["file"]
        )

    def figures(self) -> list[dict[str, float]]:
        """The figures of each finished shard."""
        return [record["figures"] for record in self._state["shards"].values()]

    def write(self, name: str, tensors: dict[str, Tensor], dtype: str, figures: Mapping[str, float]) -> None:
        """Writes one shard, then records it.

        Raises:
            OSError: the disk is full, or can't be written.
        """
        path = self.partial / name
        aside = path.with_name(f".{name}.part")
        with disk_errors_of_rust(aside):
            save_file(tensors, aside, metadata={"format": "pt"})
        aside.chmod(0o666 & ~_umask())  # safetensors writes a file for its owner alone
        with aside.open("rb+") as stream:
            os.fsync(stream.fileno())
        aside.replace(path)
        self._state["shards"][name] = {"dtype": dtype, "file": file_digest(path), "figures": dict(figures)}
        self._save()

    def finish(self) -> None:
        """Puts the output in its place."""
        for left in self.partial.glob(".*.part"):
            left.unlink()
        (self.partial / _PROGRESS).unlink()
        if self.folder.exists():
            self.folder.rmdir()
        self.partial.rename(self.folder)

    def discard(self) -> None:
        """Removes what was written so far."""
        shutil.rmtree(self.partial, ignore_errors=True)

    def _save(self) -> None:
        write_text(self.partial / _PROGRESS, json.dumps(self._state))


def shard_name(number: int, count: int) -> str:
    """As transformers names them; one shard alone is `model.safetensors`."""
    return "model.safetensors" if count == 1 else f"model-{number + 1:05d}-of-{count:05d}.safetensors"


def write_index(folder: Path, shards: list[list[str]]) -> None:
    """transformers' index of several shards: https://huggingface.co/docs/transformers/big_models."""
    if len(shards) == 1:
        return
    places = {name: shard_name(number, len(shards)) for number, names in enumerate(shards) for name in names}
    total = sum((folder / shard_name(number, len(shards))).stat().st_size for number in range(len(shards)))
    index = {"metadata": {"total_size": total}, "weight_map": places}
    write_text(folder / INDEX, json.dumps(index, indent=2) + "\n")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _read(path: Path) -> _State | None:
    """The state that an earlier process left; None where there is none, or it can't be read."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    keys = set(_State.__annotations__)
    return cast(_State, found) if isinstance(found, dict) and keys <= found.keys() else None
