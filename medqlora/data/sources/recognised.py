"""Which source reads a file or folder that a user names: PubMedQA's own files, or a question set of the user's."""

import re
from pathlib import Path
from typing import NamedTuple

from medqlora.data import readers
from medqlora.data.sources.pubmedqa_files import TEST, WHOLE
from medqlora.errors import InputError

#: bytes in which the keys of a first record stand
_HEAD = 64 * 1024
#: keys of PubMedQA's records, in GitHub's shape and in the Hub's
_SHAPES = ((b'"QUESTION"', b'"final_decision"'), (b"pubid", b"final_decision"))
_FOLD = re.compile(r"pqal_fold\d")


class Recognised(NamedTuple):
    """A source's class path, and its options that name files."""

    class_path: str
    init_args: dict[str, str]


def recognised(name: str, option: str) -> Recognised:
    """The source of `pubmedqa` (the Hub's), `demo` (invented trials), or a file or folder.

    Args:
        name: the word, or the path.
        option: the argument that named it, for messages.

    Raises:
        InputError: there is no such file, or a folder has no training file.
    """
    path = Path(name).expanduser()
    if not path.exists():
        if name == "pubmedqa":
            return Recognised("medqlora.data.PubMedQA", {})
        if name == "demo":
            return Recognised("medqlora.data.SyntheticTrials", {})
        raise InputError(f"{option}: there is no file or folder {name}: give one, or pubmedqa, or demo")
    if _is_pubmedqa(path):
        return Recognised("medqlora.data.PubMedQA", {"path": name})
    files = {"train": readers.data_files(name, option, "train")}
    options = {"train": name}
    if path.is_dir():
        for split in ("dev", "test"):
            try:
                files[split] = readers.data_files(name, option, split)
            except InputError:
                continue
            if files[split] != files["train"]:
                options[split] = name
    return Recognised("medqlora.data.JSONLines", options)


def _is_pubmedqa(path: Path) -> bool:
    if path.is_dir():
        names = [entry.name for entry in path.iterdir()]
        return WHOLE in names or TEST in names or any(map(_FOLD.fullmatch, names))
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD)
    except OSError:
        return False
    return any(all(key in head for key in keys) for keys in _SHAPES)
