"""Selects questions by topic: a branch of MeSH by tree number or name, or a topic of the source itself."""

import difflib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from medqlora.errors import InputError
from medqlora.records import Record

OPTION = "--data.topics"
_TREE = re.compile(r"[A-Z]\d\d(\.\d{3})*")


@cache
def _mesh() -> tuple[dict[str, str], dict[str, list[str]]]:
    """Branch → its name, and heading without case → the beginnings of its tree numbers; of `mesh_branches.json`."""
    shipped = json.loads(Path(__file__).with_name("mesh_branches.json").read_text("ascii"))
    return shipped["branches"], {name.casefold(): trees for name, trees in shipped["headings"].items()}


def branch_of(topic: str) -> str | None:
    """The tree number that a topic names ("C14", "Cardiovascular Diseases"); None for a heading or another topic.

    Raises:
        InputError: a tree number of a branch that does not ship.
    """
    branches, _ = _mesh()
    if _TREE.fullmatch(topic):
        if topic not in branches:
            listed = ", ".join(f"{number} {name}" for number, name in branches.items())
            raise InputError(
                f"{OPTION} {topic}: the headings of this branch do not ship: give one of {listed}, or headings by name"
            )
        return topic
    return next((number for number, name in branches.items() if name.casefold() == topic.casefold()), None)


def in_topics(record: Record, topics: Sequence[str]) -> bool:
    """Whether a question has a heading of one of the branches, or one of the topics itself."""
    branches = [branch for topic in topics if (branch := branch_of(topic)) is not None]
    names = {topic.casefold() for topic in topics}  # a branch's own name too: its heading need not be listed
    if any(topic.casefold() in names for topic in record.topics):
        return True
    _, headings = _mesh()
    trees = [tree for topic in record.topics for tree in headings.get(topic.casefold(), ())]
    return any(tree == branch or tree.startswith(f"{branch}.") for tree in trees for branch in branches)


def select(
    splits: Mapping[str, list[Record]], topics: Sequence[str], needed: Sequence[str]
) -> tuple[dict[str, list[Record]], str]:
    """The questions of these topics in each set, and a line on their numbers.

    Args:
        splits: set → its records.
        topics: tree numbers, names of branches, or topics of the records.
        needed: sets that the line names.

    Raises:
        InputError: a topic is no branch, and no question has it; or a set that is needed has no question left.
    """
    check_topics(topics, [record for part in splits.values() for record in part])
    kept = {name: [one for one in part if in_topics(one, topics)] for name, part in splits.items()}
    shown = ", ".join(topics)
    for name in needed:
        if splits[name] and not kept[name] and name != "dev":
            raise InputError(f"{OPTION} {shown}: none of the {len(splits[name]):,} {name} questions has it")
    counts = ", ".join(f"{len(kept[name]):,} of {len(splits[name]):,} {name}" for name in needed)
    return kept, f"Topics {shown}: {counts} questions"


def check_topics(topics: Sequence[str], records: Sequence[Record]) -> None:
    """Raises InputError for a topic that is no branch, and that no question has."""
    known = Counter(topic for record in records for topic in record.topics)
    folded = {topic.casefold() for topic in known}
    for topic in topics:
        if branch_of(topic) is None and topic.casefold() not in folded:
            names = [*_mesh()[0].values(), *known]
            near = difflib.get_close_matches(topic, names, 1, 0.6)
            common = ", ".join(name for name, _ in known.most_common(5))
            hint = (
                f"did you mean '{near[0]}'?"
                if near
                else f"the commonest are {common}"
                if common
                else "it has none"
            )
            raise InputError(f"{OPTION} {topic}: no question has this topic: {hint}")
