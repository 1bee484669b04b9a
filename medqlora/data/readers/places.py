"""The files that a path means: itself, the data file of a folder, or the shards and parts of a data set there.

Folders of Hugging Face: `save_to_disk` of a Dataset (`state.json` lists the shards) and of a DatasetDict
(`dataset_dict.json` lists the parts), and a repository of the Hub as it is downloaded, with its parts in the
names of the files (https://huggingface.co/docs/hub/datasets-file-names-and-splits).
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medqlora.data.readers import columnar, compression, json_rows, tables, workbooks
from medqlora.data.readers.sniffing import HEAD, json_begins, signature, tell_disguise
from medqlora.data.readers.splits import pick, split_named
from medqlora.data.wording import listed, plain, reason, shown
from medqlora.errors import InputError
from medqlora.utils.digests import file_digest

TEXT_KINDS = (*json_rows.SUFFIXES, *tables.EXTENSIONS, ".txt")
KINDS = (*TEXT_KINDS, *workbooks.SUFFIXES, *columnar.SUFFIXES)

_SHARD = re.compile(r"-(\d{5})-of-(\d{5})$")
_ABOUT = (
    "dataset_info.json",
    "dataset_infos.json",
    "dataset_dict.json",
    "state.json",
)  # what `datasets` writes
_WORD = re.compile(r"[A-Za-z]+")


def data_files(path: str, option: str, split: str = "") -> list[Path]:
    """The files that `path` means: itself, or the data file in the folder, or the shards there.

    Args:
        path: the file or folder.
        option: the option that named it, for messages.
        split: the part that is asked for, where a folder has parts: train, dev or test; "" for the only one.

    Raises:
        InputError: nothing is there, or it isn't clear which file is meant.
    """
    try:
        return _data_files(path, option, split)
    except (OSError, RuntimeError) as error:  # RuntimeError: a home folder of nobody ("~name")
        why = getattr(error, "strerror", None) or reason(error)
        place = path if path.isprintable() and len(path) < 500 else shown(path)
        raise InputError(
            f"{option}: {place} can't be read ({why}): check the path and its permissions"
        ) from error


def kind_of(name: str) -> str:
    """The extension that says what a file holds, without that of its compression; "" where it is not known."""
    suffixes = [suffix.lower() for suffix in Path(name).suffixes]
    if suffixes and suffixes[-1] in compression.SUFFIXES:
        suffixes.pop()
    return suffixes[-1] if suffixes and suffixes[-1] in KINDS else ""


def is_packed(file: Path) -> bool:
    """Whether a file's name says that it is compressed."""
    return file.suffix.lower() in compression.SUFFIXES


def fingerprint(path: str) -> dict[str, object]:
    """The size in bytes and the SHA-256 of each file that `path` means; empty where nothing can be read."""
    result: dict[str, object] = {}
    try:
        for name, file in _every_file(path).items():
            result[name] = dict(file_digest(file))
    except (InputError, OSError):
        return {}
    return result


def _every_file(path: str) -> dict[str, Path]:
    """name → file: those that the path means, or all data files of a folder whose parts are read one by one."""
    try:
        return {file.name: file for file in data_files(path, "")}
    except InputError:
        place = Path(path)
        if not path.isprintable() or not place.is_dir():
            raise
        files = sorted(file for file in place.rglob("*") if file.is_file() and _is_data(file))
        return {file.relative_to(place).as_posix(): file for file in files}


def _data_files(path: str, option: str, split: str) -> list[Path]:
    place = Path(path).expanduser()
    if not place.exists():
        raise InputError(f"{option}: there is no file {path}: check the path")
    if place.is_dir():
        return _in_folder(place, path, option, split)
    if not place.is_file():  # a pipe would be waited for
        raise InputError(f"{option}: {path} is no regular file: write the data to one first")
    if not kind_of(place.name) and not is_packed(place) and not _begins_as_data(place, path):
        raise InputError(
            f"{option}: {path}: the extension {place.suffix or '(none)'} is not known: use one of {', '.join(KINDS)} "
            f"({', '.join(compression.SUFFIXES)} after those)"
        )
    return [place]


def _begins_as_data(file: Path, path: str) -> bool:
    """Whether a file without a known extension is JSON, Parquet, Arrow or Excel by its first bytes.

    Raises:
        InputError: it is something else that is known.
    """
    with file.open("rb") as stream:
        start = stream.read(HEAD)
    tell_disguise(start, file)
    found = signature(start)
    if found and found.kind not in KINDS:
        raise InputError(f"{path}: this is {found.what}: {found.fix}")
    return found is not None or json_begins(start.decode("utf-8-sig", "replace"))


def _is_data(file: Path) -> bool:
    kind = kind_of(file.name)
    return bool(kind) and kind != ".txt" and file.name not in _ABOUT and not file.name.startswith(".")


def _in_folder(place: Path, path: str, option: str, split: str) -> list[Path]:
    if (parts := _json(place / "dataset_dict.json").get("splits")) and isinstance(parts, list):
        place = place / str(pick([str(part) for part in parts], split, path, option))
    state = _json(place / "state.json")
    if isinstance(state.get("_data_files"), list):
        return _saved(place, state, option)
    held = [file for file in sorted(place.iterdir()) if file.is_file() and _is_data(file)]
    if not held:
        inner = _inner_folder(place, path, option, split)
        if inner is not None:
            return _in_folder(inner, str(inner), option, split)
    if len(held) == 1 or _one_series(held):
        name = _SHARD.sub("", _stem(held[0])) if held else ""
        if split_named(name):
            pick([name], split, path, option)
        chosen = held
    else:
        chosen = _of_split(held, path, option, split) if held else []
    if not chosen:
        found = f"{len(held)} data files ({listed(f.name for f in held[:4])})" if held else "no data file"
        raise InputError(f"{option}: the folder {path} holds {found}: name one file")
    return _whole_series(chosen, path, option)


def _saved(place: Path, state: dict[str, Any], option: str) -> list[Path]:
    """The shards of a Dataset that was saved to disk, in their order."""
    if state.get("_indices_data_files"):
        raise InputError(
            f"{option}: {place} was saved by an old version of datasets, with its rows chosen in a file beside "
            "them: load it with load_from_disk and save it again"
        )
    names = [str(one.get("filename", "")) for one in state["_data_files"] if isinstance(one, dict)]
    files = [place / Path(name).name for name in names]
    lacking = next((file for file in files if not file.is_file()), None)
    if lacking is not None or not files:
        raise InputError(
            f"{option}: {place} lacks {lacking.name if lacking else 'its data files'}, which its state.json lists: "
            "copy the whole folder"
        )
    return files


def _inner_folder(place: Path, path: str, option: str, split: str) -> Path | None:
    """The folder below that has the data: a part, a configuration, `data`, or a snapshot of the Hub's cache."""
    folders = [
        folder for folder in sorted(place.iterdir()) if folder.is_dir() and not folder.name.startswith(".")
    ]
    filled = [
        folder for folder in folders if any(map(_is_data, (f for f in folder.rglob("*") if f.is_file())))
    ]
    if len(filled) < 2:
        return filled[0] if filled else None
    if all(split_named(folder.name) for folder in filled):
        return place / pick([folder.name for folder in filled], split, path, option)
    raise InputError(
        f"{option}: the folder {path} holds data in {listed(folder.name for folder in filled)}: name one of them"
    )


def _of_split(files: Sequence[Path], path: str, option: str, split: str) -> list[Path]:
    """The files of the part that is asked for, where each file has a part's name in its own; else none."""
    parts: dict[str, list[Path]] = {}
    for file in files:
        words = [word for word in _WORD.findall(file.name.partition(".")[0]) if split_named(word)]
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


def _whole_series(files: list[Path], path: str, option: str) -> list[Path]:
    """The shards, of which none may lack."""
    found = [_SHARD.search(_stem(file)) for file in files]
    counts = {int(match[2]) for match in found if match}
    if counts and (len(counts) > 1 or len(files) != max(counts)):
        there = {int(match[1]) for match in found if match}
        lacking = next((number for number in range(max(counts)) if number not in there), 0)
        raise InputError(
            f"{option}: the folder {path} holds {len(files)} of {max(counts)} shards; number {lacking:05d} lacks: "
            "download all of them"
        )
    return files


def _json(file: Path) -> dict[str, Any]:
    """A small file that `datasets` writes; {} where there is none, or none that can be read."""
    try:
        value = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def part_words(files: Sequence[Path], path: str) -> tuple[str, ...]:
    """What was taken of a folder, for `Table.remark`: the part or the file; nothing where `path` is a file."""
    place = Path(path).expanduser()
    if not files or files[0] == place:
        return ()
    inside = files[0].relative_to(place).as_posix()
    taken = f"{len(files)} shards" if len(files) > 1 else plain(inside)
    folder = Path(inside).parent.as_posix()
    return (f"{taken} in {plain(folder)}" if len(files) > 1 and folder != "." else taken,)
