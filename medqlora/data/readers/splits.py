"""The parts of a data set that stand in one file or folder, found by their names."""

from collections.abc import Collection

from medqlora.data.wording import listed, plain
from medqlora.errors import InputError

#: our name of a part → what others call it
_NAMES = {
    "train": ("train", "training", "trn"),
    "dev": ("dev", "development", "validation", "valid", "val", "eval", "evaluation"),
    "test": ("test", "testing", "tst"),
}
_OURS = {name: ours for ours, names in _NAMES.items() for name in names}


def split_named(name: str) -> str | None:
    """train, dev or test, where a part's name means one; None for any other name."""
    return _OURS.get(name.strip().casefold())


def split_of(option: str) -> str:
    """The part that an option asks for: train, dev or test; "" where it asks for none."""
    word = option.rpartition(".")[2]
    return "test" if word == "questions" else word if word in _NAMES else ""


def pick(names: Collection[str], split: str, place: str, option: str) -> str:
    """The name of the part that is asked for.

    Args:
        names: the parts that there are, one or more.
        split: train, dev or test; "" for whichever is the only one.
        place: the file or folder, for messages.
        option: the option that named it, for messages.

    Raises:
        InputError: it isn't clear which part is meant, or the only one is a test set and is not asked as one.
    """
    if len(names) == 1:
        only = next(iter(names))
        if split in ("train", "dev") and split_named(only) == "test":
            raise InputError(
                f"{option}: {place} holds the part {plain(only)} alone, a test set: give it as "
                "--data.source.test, or save its rows without that name"
            )
        return only
    fitting = [name for name in names if split_named(name) == split]
    if len(fitting) == 1:
        return fitting[0]
    asked = f", and {len(fitting) or 'none'} of them is a {split} set" if split else ""
    raise InputError(
        f"{option}: {place} holds the parts {listed(names)}{asked}: save the one that is meant in a file of its own"
    )
