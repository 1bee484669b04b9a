"""One paper's id on several questions: each question gets an id of its own."""

from collections.abc import Sequence
from dataclasses import replace

from medqlora.data.wording import listed
from medqlora.records import Record


class OwnIds:
    """Ids of one file's records, made unique as they are read."""

    def __init__(self) -> None:
        self._count: dict[str, int] = {}
        #: id that was made unique → the id in the file
        self.first: dict[str, str] = {}

    def own(self, record: Record) -> Record:
        """The record, with "#2" after its id where another one has it already."""
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
        """A line on the ids that were changed; nothing where none was.

        Args:
            file: the file's name.
            fix: how another column is named as the id.
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
    """Records without an id of another set, since each file may count its rows from 0.

    Args:
        records: the records.
        taken: the other set.
        mark: what is put after an id that both have.

    Returns:
        The records, and the ids that both had.
    """
    used = {record.id for record in taken}
    shared = [record.id for record in records if record.id in used]
    return [replace(one, id=f"{one.id}{mark}") if one.id in used else one for one in records], shared


def counts_rows(records: Sequence[Record]) -> bool:
    """Whether the ids only count the rows of a file, so that another file's mean nothing else."""
    numbers = [int(one.id) for one in records if one.id.isascii() and one.id.isdecimal() and len(one.id) < 10]
    return len(numbers) == len(records) > 0 and max(numbers) <= 2 * len(records)
