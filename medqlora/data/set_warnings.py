"""Warnings about the quality of a data set; training goes on."""

from collections.abc import Mapping, Sequence

from medqlora.data.checks import content
from medqlora.data.wording import listed, plain
from medqlora.records import Record

#: with fewer questions, one answer changes the accuracy by more than five points
FEWEST_VALIDATION = 20

_SHOWN = 5


def warnings_on(sets: Mapping[str, Sequence[Record]]) -> list[str]:
    """A line for each fault of the sets.

    Args:
        sets: the name of each set (train, dev, test) → its records.
    """
    lines: list[str] = []
    for name in ("train", "dev"):
        records = sets.get(name, ())
        lines += repeated(name, records)
        answers = {record.answer for record in records if record.labels}
        if len(records) > 1 and len(answers) == 1 and all(record.labels for record in records):
            lines.append(
                f"Warning: every answer of the {name} set is {plain(str(*answers))}: it can't "
                f"{'teach' if name == 'train' else 'show'} how answers are told apart"
            )
    lines += crossing(sets.get("train", ()), sets.get("dev", ()))
    few = len(sets.get("dev", ()))
    if 0 < few < FEWEST_VALIDATION:
        lines.append(
            f"Warning: the validation set has {few} questions: one of them is {100 / few:.0f} points of accuracy, so "
            f"the best checkpoint is chosen mostly by chance; give {FEWEST_VALIDATION} or more, by --data.source.dev "
            "FILE or a larger --data.source.dev_fraction"
        )
    return lines


def repeated(name: str, records: Sequence[Record]) -> list[str]:
    """Lines on repeated questions of a set, with different and with equal answers."""
    groups: dict[tuple[str, ...], list[Record]] = {}
    for record in records:
        groups.setdefault(content(record), []).append(record)
    several = [group for group in groups.values() if len(group) > 1]
    conflicts = [group for group in several if len({_answer_text(record) for record in group}) > 1]
    equal = [group for group in several if len({_answer_text(record) for record in group}) == 1]
    lines = []
    if conflicts:
        shown = "; ".join(
            ", ".join(f"{plain(record.id)} ({plain(str(record.answer))})" for record in group[:_SHOWN])
            for group in conflicts[:_SHOWN]
        )
        lines.append(
            f"Warning: {name} set: {_count(conflicts)} more than once, with other answers: {shown}{_more(conflicts)}"
        )
    if equal:
        shown = "; ".join(listed(record.id for record in group[:_SHOWN]) for group in equal[:_SHOWN])
        lines.append(f"Warning: {name} set: {_count(equal)} more than once: {shown}{_more(equal)}")
    return lines


def crossing(train: Sequence[Record], dev: Sequence[Record]) -> list[str]:
    """A line on validation questions that are in the training set too; empty where there are none."""
    by_content = {content(record): record for record in train}
    pairs = [(record, by_content[content(record)]) for record in dev if content(record) in by_content]
    if not pairs:
        return []
    shown = "; ".join(f"{plain(record.id)} (train: {plain(twin.id)})" for record, twin in pairs[:_SHOWN])
    return [
        f"Warning: {len(pairs):,} of {len(dev):,} validation questions are in the training set too, so the validation "
        f"figures are too good: {shown}{_more(pairs)}"
    ]


def _answer_text(record: Record) -> str:
    """The answer's text: the order of the options does not change it."""
    return record.options.get(record.answer or "", record.answer or "").strip().casefold()


def _count(items: Sequence[object]) -> str:
    return f"{len(items):,} {'question stands' if len(items) == 1 else 'questions stand'} there"


def _more(items: Sequence[object]) -> str:
    return f"; … ({len(items):,} in all)" if len(items) > _SHOWN else ""
