"""Selects a split (train, dev, test) of a data set by the names of its parts."""

from collections.abc import Collection

from medqlora.data.wording import listed, plain
from medqlora.errors import InputError

#: split → other names for it
_NAMES = {
    "train": ("train", "training", "trn"),
    "dev": ("dev", "development", "validation", "valid", "val", "eval", "evaluation"),
    "test": ("test", "testing", "tst"),
}
_SPLITS = {name: split for split, names in _NAMES.items() for name in names}


def split_named(name: str) -> str | None:
    """The split that a name means: train, dev or test; None for other names."""
    return _SPLITS.get(name.strip().casefold())


def split_of(option: str) -> str:
    """The split that an option reads: train, dev or test; "" for other options."""
    word = option.rpartition(".")[2]
    return "test" if word == "questions" else word if word in _NAMES else ""


def pick(names: Collection[str], split: str, path: str, option: str) -> str:
    """The name of the part for a split.

    Args:
        names: the available parts, at least one.
        split: train, dev or test; "" to require a single part.
        path: the file or folder, for messages.
        option: the option that named it, for messages.

    Raises:
        InputError: the split is ambiguous, or the only part is a test set and another split is requested.
    """
    if len(names) == 1:
        only = next(iter(names))
        if split in ("train", "dev") and split_named(only) == "test":
            raise InputError(
                f"{option}: {path} holds only the part {plain(only)}, a test set: give it as "
                "--data.source.test, or save its rows without that name"
            )
        return only
    matching = [name for name in names if split_named(name) == split]
    if len(matching) == 1:
        return matching[0]
    count = f", and {len(matching) or 'none'} of them is a {split} set" if split else ""
    raise InputError(
        f"{option}: {path} holds the parts {listed(names)}{count}: save the one you need in its own file"
    )
