"""Rejects test questions in training and validation, or counts them for the adapter's record."""

from collections.abc import Mapping, Sequence

from medqlora.data.checks import at
from medqlora.data.test_sets.search import Leak, find_leaks
from medqlora.data.test_sets.shipped import shipped_test_sets
from medqlora.errors import InputError
from medqlora.records import Record

#: the option that allows test questions in training and validation
OPTION = "--data.allow_test_questions"


def reject_test_questions(sets: Mapping[str, Sequence[Record]], *, option: bool = True) -> None:
    """Rejects benchmarks' test questions in the training and validation set.

    Args:
        sets: the name of a set → its records.
        option: whether the message names the option that allows it.

    Raises:
        InputError: a record is a test question; names the first, and their number.
    """
    by_set = {name: find_leaks(records) for name, records in sets.items()}
    leaks = [(name, leak) for name, part in by_set.items() for leak in part]
    if not leaks:
        return
    name, first = leaks[0]
    what = f"the {_id_name(first)}" if first.by == "id" else f"the question of the {_id_name(first)}"
    counts = " and ".join(
        f"{len(part):,} of the {len(sets[name]):,} {name} records" for name, part in by_set.items() if part
    )
    them = "it" if len(leaks) == 1 else "them"
    anyway = f", or pass {OPTION} true, and the adapter will say that it was" if option else ""
    raise InputError(
        f"{at(first.record)}: the {name} set holds {what}, which is in {first.benchmark}'s official test set "
        f"({counts} are test questions): remove {them}, or the test score means nothing{anyway}"
    )


def _id_name(leak: Leak) -> str:
    kind = next(part.ids for part in shipped_test_sets() if part.benchmark == leak.benchmark)
    return f"PMID {leak.question}" if kind == "pmid" else f"id {leak.question}"


def summary(train: Sequence[Record], dev: Sequence[Record]) -> dict[str, dict[str, int]]:
    """Benchmark → the number of its test questions in the training and the validation set.

    The adapter's record keeps it; empty where there are none."""
    counts: dict[str, dict[str, int]] = {}
    for name, records in (("train", train), ("validation", dev)):
        for leak in find_leaks(records):
            counts.setdefault(leak.benchmark, {"train": 0, "validation": 0})[name] += 1
    return counts


def added(
    one: Mapping[str, Mapping[str, int]], other: Mapping[str, Mapping[str, int]]
) -> dict[str, dict[str, int]]:
    """The sums of two summaries."""
    total = {benchmark: dict(of_set) for benchmark, of_set in one.items()}
    for benchmark, of_set in other.items():
        known = total.setdefault(benchmark, {})
        for name, count in of_set.items():
            known[name] = known.get(name, 0) + count
    return total


def recorded_counts(value: object) -> dict[str, dict[str, int]]:
    """The value of `summary` in an adapter's record, which may have any content; {} where there is none."""
    sets = value.items() if isinstance(value, Mapping) else ()
    return {
        str(benchmark): {str(name): count for name, count in of_set.items() if isinstance(count, int)}
        for benchmark, of_set in sets
        if isinstance(of_set, Mapping)
    }


def told(counts: Mapping[str, Mapping[str, int]]) -> str:
    """The summary as text: "449 training and 51 validation records are test questions of PubMedQA"."""
    parts = [
        f"{of_set.get('train', 0):,} training and {of_set.get('validation', 0):,} validation records are test "
        f"questions of {benchmark}"
        for benchmark, of_set in counts.items()
    ]
    return "; ".join(parts)
