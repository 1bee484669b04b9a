"""Accuracy by topic and by prompt length, each group with its interval."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

from medqlora.evaluation.report_data import Group
from medqlora.evaluation.statistics.intervals import wilson_interval
from medqlora.records import Prediction, Record

#: groups with fewer questions are merged
MINIMUM_GROUP = 10
#: the upper ends of the groups by prompt length, in tokens
LENGTH_EDGES = (128, 256, 384, 512, 768, 1024, 2048, 4096)


def topics(records: Sequence[Record]) -> dict[str, list[int]]:
    """Topic → indices of the questions that have it; those without any are under "(no topic)"."""
    members: dict[str, list[int]] = {}
    for index, record in enumerate(records):
        for topic in dict.fromkeys(record.topics or ("(no topic)",)):
            members.setdefault(topic, []).append(index)
    return members if set(members) != {"(no topic)"} else {}


def by_group(
    members: Mapping[str, Sequence[int]], right: Sequence[bool], minimum: int, other: str = "other"
) -> list[Group]:
    """Accuracy with Wilson's interval for each group, the largest first.

    Args:
        members: group → its questions (indices into `right`); a question may be in several groups.
        right: for each question, whether its decision is right.
        minimum: groups with fewer questions are merged into one, `other`, which counts each question once.
        other: name of the merged group.
    """
    small = {name for name, indices in members.items() if len(indices) < minimum}
    large = sorted(members.keys() - small, key=lambda name: (-len(members[name]), name))
    rows = [_group(name, members[name], right) for name in large]
    merged = sorted({index for name in small for index in members[name]})
    if merged:
        rows.append({**_group(other, merged, right), "merged_groups": len(small)})
    return rows


def _group(name: str, indices: Sequence[int], right: Sequence[bool]) -> Group:
    hits, n = sum(bool(right[index]) for index in indices), len(indices)
    return {"group": name, "n": n, "accuracy": hits / n, "accuracy_ci95": list(wilson_interval(hits, n))}


def by_length(predictions: Sequence[Prediction], right: Sequence[bool]) -> list[Group]:
    """Accuracy by prompt length in tokens, short to long.

    Lengths have an order, so a small group joins the next longer one, and the last the one before it.
    """
    edges = [0, *LENGTH_EDGES, max(LENGTH_EDGES[-1] + 1, *(one.context_tokens for one in predictions))]
    groups: list[tuple[int, int, list[int]]] = []
    for low, high in pairwise(edges):
        inside = [
            index
            for index, prediction in enumerate(predictions)
            if low < prediction.context_tokens <= high or (low == 0 and prediction.context_tokens == 0)
        ]
        if groups and len(groups[-1][2]) < MINIMUM_GROUP:
            low, _, before = groups.pop()
            inside = before + inside
        groups.append((low, high, inside))
    if len(groups) > 1 and len(groups[-1][2]) < MINIMUM_GROUP:
        _, high, last = groups.pop()
        low, _, before = groups.pop()
        groups.append((low, high, before + last))
    rows: list[Group] = []
    for low, high, inside in groups:
        if inside:
            lengths = [predictions[index].context_tokens for index in inside]
            row = _group(f"{min(lengths)}-{max(lengths)}", inside, right)
            rows.append({**row, "above": low, "up_to": high})
    return rows
