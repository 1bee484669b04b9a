"""Where PubMedQA's labelled questions lie on disk: one file with all of them, or the files of the authors' split.

`preprocess/split_dataset.py` of https://github.com/pubmedqa/pubmedqa writes, each in GitHub's shape:

    data/test_set.json                              500 questions
    data/pqal_fold0/train_set.json, dev_set.json    450 and 50, and so on to pqal_fold9
"""

import re
from pathlib import Path
from typing import NamedTuple

from medqlora.data import readers
from medqlora.errors import InputError

WHOLE = "ori_pqal.json"
TRAIN, DEV, TEST = "train_set.json", "dev_set.json", "test_set.json"
_FOLD = re.compile(r"pqal_fold(\d)")


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
