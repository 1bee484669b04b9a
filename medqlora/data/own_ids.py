"""Unique ids for questions that share one, as several questions about one paper do."""

from collections.abc import Sequence
from dataclasses import replace

from medqlora.data.wording import listed
from medqlora.records import Record


class OwnIds:
    """Makes the ids of one file's records unique as they are read."""

    def __init__(self) -> None:
        self._count: dict[str, int] = {}
        #: new id → the id in the file
        self.first: dict[str, str] = {}

    def own(self, record: Record) -> Record:
        """The record, with "#2" after its id where an earlier record has that id."""
        number = self._count[record.id] = self._count.get(record.id, 0) + 1
        if number == 1:
            return record
        unique = f"{record.id}#{number}"
        while unique in self._count:
            number += 1
            unique = f"{record.id}#{number}"
        self._count[unique] = 1
        self.first[unique] = record.id
        return replace(record, id=unique)

    def remark(self, file: str, fix: str) -> list[str]:
        """A line on the changed ids; empty where none was changed.

        Args:
            file: the file's name.
            fix: how to name another column as the id.
        """
        if not self.first:
            return []
        several = len(self.first) > 1
        return [
            f"Warning: {file}: {len(self.first):,} {'rows have ids' if several else 'row has an id'} that "
            f"{'stand' if several else 'stands'} before {'them' if several else 'it'}; made unique: "
            f"{listed(list(self.first)[:5])}{', …' if len(self.first) > 5 else ''} ({fix})"
        ]


def with_other_ids(
    records: Sequence[Record], taken: Sequence[Record], mark: str
) -> tuple[list[Record], list[str]]:
    """Records without ids of another set: each file may count its rows from 0.

    Args:
        records: the records.
        taken: the other set.
        mark: the suffix for an id of both sets.

    Returns:
        The records, and the ids of both sets.
    """
    used = {record.id for record in taken}
    shared = [record.id for record in records if record.id in used]
    return [replace(r, id=f"{r.id}{mark}") if r.id in used else r for r in records], shared


def counts_rows(records: Sequence[Record]) -> bool:
    """Whether the ids only count the rows of a file, so an equal id in another file means nothing."""
    numbers = [int(r.id) for r in records if r.id.isascii() and r.id.isdecimal() and len(r.id) < 10]
    return len(numbers) == len(records) > 0 and max(numbers) <= 2 * len(records)
