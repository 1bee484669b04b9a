"""Checks of every source's sets: unique ids, and no question shared between sets."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from medqlora.data.bad_records import refuse
from medqlora.data.readers import Row
from medqlora.errors import InputError
from medqlora.records import BadRecord, Record


def at(record: Record) -> str:
    """The file and line of a record, for messages."""
    return record.where or f"record {record.id}"


def at_with_id(record: Record) -> str:
    """File, line and id of a record, for messages that don't name the id."""
    return f"{record.where} (id {record.id})" if record.where else f"record {record.id}"


def unique_ids(records: Iterable[Record], option: str) -> dict[str, Record]:
    """id → record, in order.

    Raises:
        InputError: an id is repeated; names both places.
    """
    by_id: dict[str, Record] = {}
    for record in records:
        first = by_id.setdefault(record.id, record)
        if first is not record:
            raise _repeated_id(record, first, option)
    return by_id


def usable(
    rows: Iterable[Row], build: Callable[[Row], Record], option: str, skipped: list[BadRecord] | None = None
) -> list[tuple[Row, Record]]:
    """The usable rows of a file, each with its record, in order; ids are unique.

    Args:
        rows: the rows.
        build: makes the record of a row.
        option: the option that named the file, for messages.
        skipped: collects the rows that `build` rejects, and rows with a repeated id.

    Raises:
        InputError: a row is rejected or has a repeated id, and `skipped` is None.
    """
    pairs: list[tuple[Row, Record]] = []
    by_id: dict[str, Record] = {}
    for row in rows:
        file = row.file or row.where
        try:
            record = build(row)
            if record.id in by_id:
                raise _repeated_id(record, by_id[record.id], option)
        except InputError as error:
            why = str(error).removeprefix(f"{row.where}: ")
            refuse(_with_skip(error, why, option), BadRecord(file, row.number, why), skipped)
        else:
            by_id[record.id] = record
            pairs.append((row, record))
    return pairs


def _with_skip(error: InputError, why: str, option: str) -> InputError:
    """The error of a row, with the option that leaves such rows out where the source has it."""
    if not option.startswith("--data.source.") or why == str(error):  # a fault of the file, not of a row
        return error
    return InputError(f"{error}, or leave such rows out: --data.source.on_bad_record skip")


def _repeated_id(record: Record, first: Record, option: str) -> InputError:
    return InputError(
        f"{at(record)}: the id {record.id} is already at {at(first)}: each id may stand once ({option}); give one of "
        "the questions another id"
    )


def content(record: Record) -> tuple[str, ...]:
    """The texts that make two records the same question, whatever their ids; case and white space don't count.

    An image counts by its digest: the same question about another image is another question.
    """
    digests = [image.sha256 for image in record.images]
    parts = (*digests, record.question, *record.contexts, *record.options.values())
    return tuple(" ".join(part.split()).casefold() for part in parts)


def _leaks(record: Record) -> set[tuple[object, ...]]:
    """Keys of a question: its texts with its options, in any order, and its texts with its right answer."""
    parts = content(record)
    texts, options = parts[: len(parts) - len(record.options)], parts[len(parts) - len(record.options) :]
    keys: set[tuple[object, ...]] = {("options", texts, tuple(sorted(options)))}
    if record.answer is not None:
        right = record.options.get(record.answer, record.answer)
        keys.add(("answer", texts, " ".join(right.split()).casefold()))
    return keys


def without_shared_content(records: Sequence[Record], held_out: Sequence[Record]) -> list[Record]:
    """`records` without the questions of `held_out`, for benchmarks that repeat questions across their own splits.

    Two questions are the same when their texts and contexts are equal, and either all their options, in any order, or
    their right answers. Case and white space don't count.

    Args:
        records: the training or validation set.
        held_out: the records that may not be in it.
    """
    held_out_keys = {key for record in held_out for key in _leaks(record)}
    return [record for record in records if held_out_keys.isdisjoint(_leaks(record))]


def reject_shared_content(
    seen: Mapping[str, Sequence[Record]], held_out: Sequence[Record], name: str
) -> None:
    """Rejects held-out questions in the training or validation set, whatever their ids.

    Two records are the same when question, contexts and options are equal; case and white space don't count.

    Args:
        seen: the name of a set → its records, of training and validation.
        held_out: the records that may not be in these sets.
        name: the name of the held-out set.

    Raises:
        InputError: a record is in both.
    """
    by_content = {content(record): record for record in held_out}
    for set_name, records in seen.items():
        for record in records:
            twin = by_content.get(content(record))
            if twin is not None:
                raise InputError(
                    f"{at(record)}: the {set_name} set holds the same question and context as {at(twin)} of the "
                    f"{name} set: remove it, or its score means nothing"
                )
