"""PubMedQA's labelled questions on disk: one file with all of them, or the files of the authors' split.

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
        whole: a file, or a folder with one file, that holds questions of any split; None where there are split files.
        parts: split ("train", "dev", "test") → its file; empty where there are no split files.
    """

    whole: str | None
    parts: dict[str, Path]


def labeled_files(path: str, fold: int, option: str) -> LabeledFiles:
    """The files that a path stands for.

    Args:
        path: `ori_pqal.json`, another file, a folder pqal_foldN, the authors' folder data, or a folder with one
            data file.
        fold: the number of pqal_foldN in the folder data.
        option: the option that named the path, for messages.

    Raises:
        InputError: the folder data has only other folds, or can't be read.
    """
    location = Path(path).expanduser()
    try:
        if not location.is_dir():
            return LabeledFiles(path, {})
        if (location / WHOLE).is_file():
            return LabeledFiles(str(location / WHOLE), {})
        folds = sorted(
            entry for entry in location.iterdir() if _FOLD.fullmatch(entry.name) and entry.is_dir()
        )
        parts = {"train": location / TRAIN, "dev": location / DEV, "test": location / TEST}
        if folds and not parts["train"].is_file() and not parts["dev"].is_file():
            of_fold = location / f"pqal_fold{fold}"
            if of_fold not in folds:
                if len(folds) > 1 or fold != 0:
                    there = ", ".join(folder.name for folder in folds)
                    raise InputError(
                        f"--data.source.fold: {fold}, and {path} has no folder pqal_fold{fold} ({there}): give one "
                        "of these"
                    )
                of_fold = folds[0]
            parts |= {"train": of_fold / TRAIN, "dev": of_fold / DEV}
        files = {name: file for name, file in parts.items() if file.is_file()}
    except (OSError, RuntimeError) as error:  # RuntimeError: the home folder of an unknown user ("~name")
        raise InputError(
            f"{option}: {path} can't be read ({error}): check the path and its permissions"
        ) from error
    return LabeledFiles(None, files) if files else LabeledFiles(path, {})


def fingerprint(path: str, fold: int) -> dict[str, object]:
    """File name → size and SHA-256, of each file that `path` stands for; empty where nothing can be read."""
    try:
        files = labeled_files(path, fold, "")
    except InputError:
        return {}
    if files.whole is not None:
        return readers.fingerprint(files.whole)
    digests: dict[str, object] = {}
    for file in files.parts.values():
        digests.update(readers.fingerprint(str(file)))
    return digests
