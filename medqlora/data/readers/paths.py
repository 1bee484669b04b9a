"""Resolves a path to data files: a file, the data file in a folder, or the shards of a data set.

Hugging Face folders: `save_to_disk` of a Dataset (`state.json` lists the shards) or a DatasetDict
(`dataset_dict.json` lists the parts), and a downloaded repository of the Hub with the parts in its file names
(https://huggingface.co/docs/hub/datasets-file-names-and-splits).
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from medqlora.data.readers import columnar, compression, json_rows, tables, workbooks
from medqlora.data.readers.sniffing import HEAD, json_begins, reject_non_data, signature
from medqlora.data.readers.splits import pick, split_named
from medqlora.data.wording import listed, plain, reason, shown
from medqlora.errors import InputError
from medqlora.utils.digests import file_digest
from medqlora.utils.types import Json

KINDS = (*json_rows.SUFFIXES, *tables.EXTENSIONS, ".txt", *workbooks.SUFFIXES, *columnar.SUFFIXES)

_SHARD = re.compile(r"-(\d{5})-of-(\d{5})$")
#: metadata files of `datasets`
_METADATA = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
_WORD = re.compile(r"[A-Za-z]+")


def data_files(path: str, option: str, split: str = "") -> list[Path]:
    """Resolves `path` to a file, the data file in a folder, or the shards in a folder.

    Args:
        path: the file or folder.
        option: the option that named it, for messages.
        split: the split to select if a folder has several: train, dev or test; "" to require a single one.

    Raises:
        InputError: the path does not exist, is unreadable or ambiguous.
    """
    try:
        return _data_files(path, option, split)
    except (OSError, RuntimeError) as error:  # RuntimeError: the home folder of an unknown user ("~name")
        why = getattr(error, "strerror", None) or reason(error)
        name = path if path.isprintable() and len(path) < 500 else shown(path)
        raise InputError(
            f"{option}: {name} can't be read ({why}): check the path and its permissions"
        ) from error


def kind_of(name: str) -> str:
    """The lowercase extension of the format, without that of a compression; "" if it is unknown."""
    suffixes = [suffix.lower() for suffix in Path(name).suffixes]
    if suffixes and suffixes[-1] in compression.SUFFIXES:
        suffixes.pop()
    return suffixes[-1] if suffixes and suffixes[-1] in KINDS else ""


def is_packed(file: Path) -> bool:
    """Whether a file has the extension of a compression."""
    return file.suffix.lower() in compression.SUFFIXES


def fingerprint(path: str) -> dict[str, object]:
    """File name → size in bytes and SHA-256, for the files of `path`; empty if they are unreadable."""
    try:
        return {name: dict(file_digest(file)) for name, file in _fingerprinted(path).items()}
    except (InputError, OSError):
        return {}


def _fingerprinted(path: str) -> dict[str, Path]:
    """Name → file: the files of `path`, or all data files of a folder that has several parts."""
    try:
        return {file.name: file for file in data_files(path, "")}
    except InputError:
        folder = Path(path)
        if not path.isprintable() or not folder.is_dir():
            raise
        files = sorted(file for file in folder.rglob("*") if file.is_file() and _is_data(file))
        return {file.relative_to(folder).as_posix(): file for file in files}


def _data_files(path: str, option: str, split: str) -> list[Path]:
    file = Path(path).expanduser()
    if not file.exists():
        raise InputError(f"{option}: there is no file {path}: check the path")
    if file.is_dir():
        return _in_folder(file, path, option, split)
    if not file.is_file():  # reading a pipe would block
        raise InputError(f"{option}: {path} is no regular file: write the data to one first")
    if not kind_of(file.name) and not is_packed(file) and not _begins_as_data(file, path):
        raise InputError(
            f"{option}: {path}: the extension {file.suffix or '(none)'} is not known: use one of {', '.join(KINDS)} "
            f"({', '.join(compression.SUFFIXES)} after those)"
        )
    return [file]


def _begins_as_data(file: Path, path: str) -> bool:
    """Whether the first bytes of a file without a known extension are JSON, Parquet, Arrow or Excel.

    Raises:
        InputError: they are of a known format that is not supported.
    """
    with file.open("rb") as stream:
        start = stream.read(HEAD)
    reject_non_data(start, file)
    kind = signature(start)
    if kind and kind.kind not in KINDS:
        raise InputError(f"{path}: this is {kind.what}: {kind.fix}")
    return kind is not None or json_begins(start.decode("utf-8-sig", "replace"))


def _is_data(file: Path) -> bool:
    return (
        kind_of(file.name) not in ("", ".txt")
        and file.name not in _METADATA
        and not file.name.startswith(".")
    )


def _in_folder(folder: Path, path: str, option: str, split: str) -> list[Path]:
    if (parts := _metadata(folder / "dataset_dict.json").get("splits")) and isinstance(parts, list):
        folder = folder / pick([str(part) for part in parts], split, path, option)
    state = _metadata(folder / "state.json")
    if isinstance(state.get("_data_files"), list):
        return _saved_shards(folder, state, option)
    files = [file for file in sorted(folder.iterdir()) if file.is_file() and _is_data(file)]
    if not files:
        inner = _inner_folder(folder, path, option, split)
        if inner is not None:
            return _in_folder(inner, str(inner), option, split)
    if len(files) == 1 or _one_series(files):
        name = _SHARD.sub("", _stem(files[0])) if files else ""
        if split_named(name):
            pick([name], split, path, option)
        chosen = files
    else:
        chosen = _of_split(files, path, option, split) if files else []
    if not chosen:
        content = (
            f"{len(files)} data files ({listed(f.name for f in files[:4])})" if files else "no data file"
        )
        raise InputError(f"{option}: the folder {path} holds {content}: name one file")
    return _complete_series(chosen, path, option)


def _saved_shards(folder: Path, state: Mapping[str, Json], option: str) -> list[Path]:
    """The shards of a Dataset written by `save_to_disk`, in order."""
    if state.get("_indices_data_files"):
        raise InputError(
            f"{option}: {folder} was saved by an old version of datasets, with its row selection in a separate "
            "file: load it with load_from_disk and save it again"
        )
    entries = state["_data_files"]
    assert isinstance(entries, list)
    names = [str(entry.get("filename", "")) for entry in entries if isinstance(entry, dict)]
    files = [folder / Path(name).name for name in names]
    missing = next((file for file in files if not file.is_file()), None)
    if missing is not None or not files:
        raise InputError(
            f"{option}: {folder} lacks {missing.name if missing else 'its data files'}, which its state.json lists: "
            "copy the whole folder"
        )
    return files


def _inner_folder(folder: Path, path: str, option: str, split: str) -> Path | None:
    """The subfolder with the data: a split, a configuration, `data`, or a snapshot of the Hub's cache."""
    filled = [
        inner
        for inner in sorted(folder.iterdir())
        if inner.is_dir()
        and not inner.name.startswith(".")
        and any(file.is_file() and _is_data(file) for file in inner.rglob("*"))
    ]
    if len(filled) < 2:
        return filled[0] if filled else None
    names = [inner.name for inner in filled]
    if all(map(split_named, names)):
        return folder / pick(names, split, path, option)
    raise InputError(f"{option}: the folder {path} holds data in {listed(names)}: name one of them")


def _of_split(files: Sequence[Path], path: str, option: str, split: str) -> list[Path]:
    """The files of the split, if every file name contains one split name; otherwise []."""
    parts: dict[str, list[Path]] = {}
    for file in files:
        words = [word for word in _WORD.findall(_stem(file)) if split_named(word)]
        if len(words) != 1:
            return []
        parts.setdefault(words[0], []).append(file)
    chosen = parts[pick(list(parts), split, path, option)]
    return chosen if len(chosen) == 1 or _one_series(chosen) else []


def _one_series(files: Sequence[Path]) -> bool:
    return all(_SHARD.search(_stem(file)) for file in files) and len({_series(file) for file in files}) == 1


def _stem(file: Path) -> str:
    return file.name.partition(".")[0]


def _series(file: Path) -> str:
    return _SHARD.sub("", _stem(file)) + file.name[len(_stem(file)) :]


def _complete_series(files: list[Path], path: str, option: str) -> list[Path]:
    """The shards, after a check that none is missing."""
    matches = [match for file in files if (match := _SHARD.search(_stem(file)))]
    counts = {int(match[2]) for match in matches}
    if counts and (len(counts) > 1 or len(files) != max(counts)):
        numbers = {int(match[1]) for match in matches}
        missing = next((number for number in range(max(counts)) if number not in numbers), 0)
        raise InputError(
            f"{option}: the folder {path} holds {len(files)} of {max(counts)} shards; number {missing:05d} is missing: "
            "download all of them"
        )
    return files


def _metadata(file: Path) -> dict[str, Json]:
    """The content of a metadata file of `datasets`; {} if it is absent or unreadable."""
    try:
        value = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def part_words(files: Sequence[Path], path: str) -> tuple[str, ...]:
    """The selected file or shards of a folder, for `Table.remark`; empty if `path` is a file."""
    folder = Path(path).expanduser()
    if not files or files[0] == folder:
        return ()
    inner = files[0].relative_to(folder)
    if len(files) == 1:
        return (plain(inner.as_posix()),)
    shards = f"{len(files)} shards"
    return (shards if inner.parent == Path() else f"{shards} in {plain(inner.parent.as_posix())}",)
