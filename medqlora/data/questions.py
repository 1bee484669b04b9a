"""A file of questions to be answered: nobody knows the answers, or they are not looked at.

Source: the user's file. A row as JSONL; `question` alone is needed, and a CSV has the same columns:

    {"id": "ward-7", "question": "Is aspirin of use here?", "contexts": ["METHODS …", "RESULTS …"]}
    {"question": "Which drug is a beta blocker?", "options": {"A": "Aspirin", "B": "Atenolol"}}
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from medqlora.data import readers
from medqlora.data.checks import usable
from medqlora.data.jsonlines import JSONLines
from medqlora.data.readers import Row
from medqlora.data.wording import listed
from medqlora.errors import InputError
from medqlora.records import BadRecord, Record

_ANSWERS = ("answer", "long_answer")


def read_questions(
    path: str,
    option: str,
    labels: Sequence[str],
    skipped: list[BadRecord] | None = None,
    remarks: list[str] | None = None,
) -> list[Record]:
    """The questions of a file, in its order.

    Args:
        path: any file that `JSONLines` reads. `context` is taken for `contexts`.
        option: the option that named it, for messages.
        labels: the possible decisions of a question without options; none for free answers.
        skipped: takes up the rows that can't be used, which are then left out; without it they are errors.
        remarks: takes up the line that says how the file was understood.

    Raises:
        InputError: the file or a row is not as it should be; names the place. None of the rows can be used.
    """
    already = len(skipped or ())
    rows, understood = readers.read_table(path, option, skipped)
    if remarks is not None:
        remarks.append(understood)
    there = {key for row in rows for key in row.value}
    if "question" not in there:
        raise InputError(
            f"{option}: no row of {path} has the column 'question'; there are {listed(sorted(there))}: rename one"
        )
    context = "context" in there and "contexts" not in there
    reader = JSONLines(path, fields={"contexts": "context"} if context else None)
    stem = Path(path).name.partition(".")[0]

    def build(row: Row) -> Record:
        asked = row._replace(value={key: value for key, value in row.value.items() if key not in _ANSWERS})
        record = reader.record(asked, f"{stem}:{row.key or row.number}")
        return record if record.options else replace(record, labels=tuple(labels))

    records = [record for _, record in usable(rows, build, option, skipped)]
    if skipped and not records:
        raise readers.all_bad(path, option, skipped[already:])
    return records
