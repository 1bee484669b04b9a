"""What has to hold for every source's sets, so that no answer leaks and no id is there twice."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from medqlora.data.bad_records import refuse
from medqlora.data.readers import Row
from medqlora.errors import InputError
from medqlora.records import BadRecord, Record


def at(record: Record) -> str:
    """A record's place for messages."""
    return record.where or f"record {record.id}"


def at_with_id(record: Record) -> str:
    """The same, where a message doesn't name the id already."""
    return f"{record.where} (id {record.id})" if record.where else f"record {record.id}"


def unique_ids(records: Iterable[Record], option: str) -> dict[str, Record]:
    """id → record, in order.

    Raises:
        InputError: an id is there twice; names both places.
    """
    found: dict[str, Record] = {}
    for record in records:
        first = found.setdefault(record.id, record)
        if first is not record:
            raise _stands_twice(record, first, option)
    return found


def usable(
    rows: Iterable[Row], build: Callable[[Row], Record], option: str, skipped: list[BadRecord] | None = None
) -> list[tuple[Row, Record]]:
    """The rows of a file that make a record, each with it, in order; no id is there twice.

    Args:
        rows: the rows.
        build: a row as a record.
        option: the option that named the file, for messages.
        skipped: takes up what is left out: the rows that `build` refuses, and the second of an id.

    Raises:
        InputError: a row makes no record, or its id is there already, and `skipped` is None.
    """
    found: list[tuple[Row, Record]] = []
    places: dict[str, Record] = {}
    for row in rows:
        file = row.file or row.where
        try:
            record = build(row)
            if record.id in places:
                raise _stands_twice(record, places[record.id], option)
        except InputError as error:
            why = str(error).removeprefix(f"{row.where}: ")
            refuse(error, BadRecord(file, row.number, why), skipped)
        else:
            places[record.id] = record
            found.append((row, record))
    return found


def _stands_twice(record: Record, first: Record, option: str) -> InputError:
    return InputError(
        f"{at(record)}: the id {record.id} is already at {at(first)}: each id may stand once ({option}); give one of "
        "the questions another id"
    )


def content(record: Record) -> tuple[str, ...]:
    """What makes two records the same question, whatever their ids: the texts, but for case and white space."""
    parts = (record.question, *record.contexts, *record.options.values())
    return tuple(" ".join(part.split()).casefold() for part in parts)


def _leaks(record: Record) -> set[tuple[object, ...]]:
    """What gives a multiple-choice question away: it with its options, in any order, or with its answer."""
    parts = content(record)
    asked, options = parts[: len(parts) - len(record.options)], parts[len(parts) - len(record.options) :]
    keys: set[tuple[object, ...]] = {("options", asked, tuple(sorted(options)))}
    if record.answer is not None:
        right = record.options.get(record.answer, record.answer)
        keys.add(("answer", asked, " ".join(right.split()).casefold()))
    return keys


def without_shared_content(records: Sequence[Record], held_out: Sequence[Record]) -> list[Record]:
    """`records` without the questions that `held_out` holds too, for benchmarks that are known to repeat
    some across their own splits.

    Two questions are the same when their texts and contexts are, but for case and white space, and either
    all their options, in whatever order, or their right answers too.

    Args:
        records: what training, or the choice of a checkpoint, sees.
        held_out: the records to be kept from it.
    """
    secret = {key for record in held_out for key in _leaks(record)}
    return [record for record in records if secret.isdisjoint(_leaks(record))]


def reject_shared_content(
    seen: Mapping[str, Sequence[Record]], held_out: Sequence[Record], name: str
) -> None:
    """No held-out question may be trained on, whatever id it goes by.

    Two records are the same when question and contexts are, but for case and white space.

    Args:
        seen: the name of a set → its records; those that training or the choice of a checkpoint sees.
        held_out: the records to be kept from it.
        name: what the held-out set is called.

    Raises:
        InputError: a record is in both.
    """
    secret = {content(record): record for record in held_out}
    for set_name, records in seen.items():
        for record in records:
            twin = secret.get(content(record))
            if twin is not None:
                raise InputError(
                    f"{at(record)}: the {set_name} set holds the same question and context as {at(twin)} of the "
                    f"{name} set: remove it, or its score means nothing"
                )
