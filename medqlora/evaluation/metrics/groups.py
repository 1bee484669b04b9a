"""Accuracy by topic and by prompt length: many groups, small counts, so each has its interval."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from medqlora.evaluation.statistics.intervals import wilson_interval
from medqlora.records import Prediction, Record

#: groups with fewer questions are merged
MINIMUM_GROUP = 10
#: the upper ends of the groups by prompt length, in tokens
LENGTH_EDGES = (128, 256, 384, 512, 768, 1024, 2048, 4096)


def topics(records: Sequence[Record]) -> dict[str, list[int]]:
    """Topic → the questions that have it; those without any stand under "(no topic)"."""
    members: dict[str, list[int]] = {}
    for place, record in enumerate(records):
        for topic in dict.fromkeys(record.topics):
            members.setdefault(topic, []).append(place)
        if not record.topics:
            members.setdefault("(no topic)", []).append(place)
    return members if set(members) != {"(no topic)"} else {}


def by_group(
    members: Mapping[str, Sequence[int]], right: Sequence[bool], minimum: int, other: str = "other"
) -> list[dict[str, Any]]:
    """Accuracy with Wilson's interval for each group, the largest first.

    Args:
        members: group → the items in it (indices into `right`); an item may be in several groups.
        right: for each item, whether its decision is right.
        minimum: groups with fewer items are merged into one, `other`, which counts each item once.
    """
    small = {name for name, items in members.items() if len(items) < minimum}
    groups = Counter({name: len(items) for name, items in members.items() if name not in small})
    rows = [
        (name, list(members[name]))
        for name, _ in sorted(groups.items(), key=lambda pair: (-pair[1], pair[0]))
    ]
    merged = sorted({item for name in small for item in members[name]})
    if merged:
        rows.append((other, merged))
    return [
        _group(name, items, right, merged_groups=len(small) if items is merged else 0) for name, items in rows
    ]


def _group(name: str, items: Sequence[int], right: Sequence[bool], merged_groups: int) -> dict[str, Any]:
    hits = sum(bool(right[item]) for item in items)
    row: dict[str, Any] = {
        "group": name,
        "n": len(items),
        "accuracy": hits / len(items),
        "accuracy_ci95": list(wilson_interval(hits, len(items))),
    }
    return {**row, "merged_groups": merged_groups} if merged_groups else row


def by_length(predictions: Sequence[Prediction], right: Sequence[bool]) -> list[dict[str, Any]]:
    """Accuracy by prompt length in tokens, short to long; a small group joins the next longer one, the
    last the one before it, since lengths have an order that "other" would lose."""
    edges = [0, *LENGTH_EDGES, max(LENGTH_EDGES[-1] + 1, *(one.context_tokens for one in predictions))]
    groups: list[tuple[int, int, list[int]]] = []
    for low, high in pairwise(edges):
        inside = [
            place
            for place, one in enumerate(predictions)
            if low < one.context_tokens <= high or (low == 0 and one.context_tokens == 0)
        ]
        if groups and len(groups[-1][2]) < MINIMUM_GROUP:
            start, _, before = groups.pop()
            groups.append((start, high, before + inside))
        else:
            groups.append((low, high, inside))
    if len(groups) > 1 and len(groups[-1][2]) < MINIMUM_GROUP:
        _, high, rest = groups.pop()
        low, _, before = groups.pop()
        groups.append((low, high, before + rest))
    rows = []
    for low, high, inside in groups:
        if not inside:
            continue
        actual = [predictions[place].context_tokens for place in inside]
        (row,) = by_group({f"{min(actual)}-{max(actual)}": inside}, right, 0)
        rows.append({**row, "above": low, "up_to": high})
    return rows
