"""Folds of a source's development questions: which ones a user names, and how a source without official ones is cut."""

import inspect
import random
from collections.abc import Sequence

from medqlora.errors import InputError
from medqlora.records import Record

#: folds of the sources that have a `fold` option: PubMedQA's official number
FOLDS = 10


def parse_folds(text: str, option: str = "--folds") -> tuple[int, ...]:
    """The folds of "all", or of numbers from 0 to 9 with commas between them ("0,3,7"), in their order.

    Raises:
        InputError: something else, or a fold that is named twice.
    """
    if text.strip().lower() == "all":
        return tuple(range(FOLDS))
    fix = f"give all, or numbers from 0 to {FOLDS - 1} with commas between them, as 0,3,7"
    folds: list[int] = []
    for part in text.split(","):
        word = part.strip()
        if not (word.isascii() and word.isdigit()) or not 0 <= int(word) < FOLDS:
            raise InputError(f"{option} {text}: {word!r} is no fold: {fix}")
        if int(word) in folds:
            raise InputError(f"{option} {text}: fold {int(word)} is named twice: {fix}")
        folds.append(int(word))
    return tuple(sorted(folds))


def check_has_folds(class_path: str, option: str = "--folds") -> None:
    """Raises InputError for a source of this project that has no folds; a source of the user's own is left alone."""
    from medqlora.config.schema import sources

    kind = sources().get(class_path)
    if kind is not None and "fold" not in inspect.signature(kind).parameters:
        known = [
            name.rpartition(".")[2]
            for name, one in sources().items()
            if "fold" in inspect.signature(one).parameters
        ]
        raise InputError(
            f"{option}: the source {class_path.rpartition('.')[2]} has no folds: use {' or '.join(known)}, or a source "
            "of your own with an option `fold`"
        )


def stratified_folds(records: Sequence[Record], folds: int = FOLDS, seed: int = 0) -> list[list[Record]]:
    """Cuts records into folds with nearly the same share of each answer, as PubMedQA's authors did.

    Each answer's records are shuffled and dealt to the folds in turn; the next answer goes on with the fold at which
    the last one stopped, so the folds' sizes differ by one at most.

    Args:
        records: with answers.
        folds: number of folds, at most as many as records.
        seed: of the shuffle.
    """
    by_answer: dict[str, list[Record]] = {}
    for record in records:
        by_answer.setdefault(str(record.answer), []).append(record)
    rng = random.Random(f"{seed}/folds")
    cut: list[list[Record]] = [[] for _ in range(folds)]
    place = 0
    for answer in sorted(by_answer):
        rng.shuffle(by_answer[answer])
        for record in by_answer[answer]:
            cut[place % folds].append(record)
            place += 1
    return cut
