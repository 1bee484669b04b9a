"""A file of questions to predict; answers in it are ignored.

Source: the user's file. A row as JSONL; only `question` is required, and a CSV has the same columns:

    {"id": "ward-7", "question": "Is aspirin of use here?", "contexts": ["METHODS …", "RESULTS …"]}
    {"question": "Which drug is a beta blocker?", "options": {"A": "Aspirin", "B": "Atenolol"}}
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from medqlora.data import readers
from medqlora.data.checks import usable
from medqlora.data.own_ids import OwnIds
from medqlora.data.readers import Row
from medqlora.data.shapes import Labels, Table
from medqlora.records import BadRecord, Record


def read_questions(
    path: str,
    option: str,
    labels: Sequence[str],
    skipped: list[BadRecord] | None = None,
    remarks: list[str] | None = None,
) -> list[Record]:
    """The questions of a file, in its order.

    Args:
        path: a file in any format that `JSONLines` reads, with the same column names.
        option: the option that named it, for messages.
        labels: the possible decisions of a question without options; none for free answers.
        skipped: collects unusable rows, which are then left out; without it they are errors.
        remarks: collects lines on how the file and its columns were read.

    Raises:
        InputError: the file or a row is malformed, or no row is usable; names the file and line.
    """
    already = len(skipped or ())
    rows, understood = readers.read_table(path, option, skipped)
    table = Table(rows, option, Labels(tuple(labels)), answers=False)
    name = Path(path).name
    stem = name.partition(".")[0]
    ids = OwnIds()

    def build(row: Row) -> Record:
        record = ids.own(table.record(row, f"{stem}:{row.key or row.number}"))
        return replace(record, labels=tuple(record.options) or tuple(labels))

    records = [record for _, record in usable(table.rows, build, option, skipped)]
    if skipped and not records:
        raise readers.all_bad(path, option, skipped[already:])
    if remarks is not None:
        remarks.append(", ".join([understood, *table.words()]))
        remarks += [f"{name}: {line}" for line in table.remarks()]
        remarks += ids.remark(name, "give the column id other values")
    return records
