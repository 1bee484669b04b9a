"""Where PubMedQA's labelled questions lie on disk: one file with all of them, or the files of the authors' split.

`preprocess/split_dataset.py` of https://github.com/pubmedqa/pubmedqa writes, each in GitHub's shape:

    data/test_set.json                              500 questions
    data/pqal_fold0/train_set.json, dev_set.json    450 and 50, and so on to pqal_fold9
"""

import ast
import re
from pathlib import Path
from typing import Any, NamedTuple

from medqlora.data import readers
from medqlora.data.json_text import parse_json
from medqlora.errors import InputError

WHOLE = "ori_pqal.json"
TRAIN, DEV, TEST = "train_set.json", "dev_set.json", "test_set.json"
_FOLD = re.compile(r"pqal_fold(\d)")
#: characters of a cell that is read as a Python literal: the longest of PubMedQA's has under 20,000
_LONGEST_CELL = 1_000_000


class LabeledFiles(NamedTuple):
    """The files of a `path`.

    Attributes:
        whole: a file, or a folder with one, that holds questions of any split; None where there are split files.
        parts: split ("train", "dev", "test") → its file, where there are split files.
    """

    whole: str | None
    parts: dict[str, Path]


def labeled_files(path: str, fold: int, option: str) -> LabeledFiles:
    """What a file or a folder holds.

    Args:
        path: `ori_pqal.json`, another file, a folder pqal_foldN, the authors' folder data, or a folder with one
            data file.
        fold: which pqal_foldN of the folder data is meant.
        option: the option that named it, for messages.

    Raises:
        InputError: the folder data has other folds alone, or can't be looked into.
    """
    place = Path(path).expanduser()
    try:
        if not place.is_dir():
            return LabeledFiles(path, {})
        if (place / WHOLE).is_file():
            return LabeledFiles(str(place / WHOLE), {})
        folds = sorted(one for one in place.iterdir() if _FOLD.fullmatch(one.name) and one.is_dir())
        parts = {"train": place / TRAIN, "dev": place / DEV, "test": place / TEST}
        if folds and not parts["train"].is_file() and not parts["dev"].is_file():
            of_fold = place / f"pqal_fold{fold}"
            if of_fold not in folds:
                if len(folds) > 1 or fold != 0:
                    there = ", ".join(one.name for one in folds)
                    raise InputError(
                        f"--data.source.fold: {fold}, and {path} has no folder pqal_fold{fold} ({there}): give one "
                        "of these"
                    )
                of_fold = folds[0]
            parts |= {"train": of_fold / TRAIN, "dev": of_fold / DEV}
        found = {name: file for name, file in parts.items() if file.is_file()}
    except (OSError, RuntimeError) as error:  # RuntimeError: a home folder of nobody ("~name")
        raise InputError(
            f"{option}: {path} can't be read ({error}): check the path and its permissions"
        ) from error
    return LabeledFiles(None, found) if found else LabeledFiles(path, {})


def fingerprint(path: str, fold: int) -> dict[str, object]:
    """Size and SHA-256 of each file that `path` means, by its name; empty where nothing can be read."""
    try:
        found = labeled_files(path, fold, "")
    except InputError:
        return {}
    if found.whole is not None:
        return readers.fingerprint(found.whole)
    of_parts: dict[str, object] = {}
    for file in found.parts.values():
        of_parts.update(readers.fingerprint(str(file)))
    return of_parts


def context_cell(text: str) -> Any:
    """The Hub's `context` as the cell of a CSV: JSON, or a Python literal in which numpy's arrays may stand
    (`{'contexts': array(['…', '…'], dtype=object), …}`, as pandas writes it).

    Nothing is evaluated.

    Raises:
        ValueError: it is neither, or too long.
    """
    if len(text) > _LONGEST_CELL:
        raise ValueError(f"{len(text):,} characters")
    try:
        return parse_json(text)
    except ValueError:
        pass
    try:
        return _value(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, MemoryError, RecursionError) as error:
        raise ValueError("no JSON and no Python literal") from error


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Dict):
        keys = [None if key is None else _value(key) for key in node.keys]
        return {str(key): _value(value) for key, value in zip(keys, node.values, strict=True)}
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_value(one) for one in node.elts]
    if isinstance(node, ast.Constant) and isinstance(node.value, (str, int, float, type(None))):
        return node.value
    if isinstance(node, ast.Name) and node.id == "nan":
        return None
    if (
        isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("array", "np.array", "numpy.array")
        and node.args
    ):
        return _value(node.args[0])
    raise ValueError(f"{type(node).__name__} is no literal")
