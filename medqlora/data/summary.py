"""What is said of a set that was read, and the set's question with nothing in it."""

from collections import Counter
from collections.abc import Sequence

from medqlora.records import Encoded, Record


def content_free(records: Sequence[Record]) -> Record | None:
    """The set's question with nothing in it, as https://arxiv.org/abs/2102.09690 asks it ("N/A")."""
    first = records[0] if records else None
    if first is None or not first.labels or any(one.labels != first.labels for one in records):
        return None
    return Record(
        id="content-free",
        question="N/A",
        contexts=("N/A",) if any(one.contexts for one in records) else (),
        options=dict.fromkeys(first.options, "N/A"),
        labels=first.labels,
    )


def describe(source: str, split: str, records: list[Record], encoded: list[Encoded]) -> str:
    """One line: how many, of which answers, how long, how many were shortened."""
    answers = Counter(record.answer for record in records if record.labels)
    labels = dict.fromkeys(label for record in records for label in record.labels)
    parts = [f"{answers[label]} {label}" for label in labels if answers[label]]
    lengths = [len(example.prompt) + len(example.completion) for example in encoded]
    shortened = sum(example.dropped > 0 for example in encoded)
    line = f"{source} {split}: {len(records)} questions"
    line += f" ({', '.join(parts[:6])})" if parts else ""
    line += f", {sum(lengths) / len(lengths):.0f} tokens each (at most {max(lengths)})"
    if shortened:
        line += (
            f"; the context of {shortened} was shortened, by {sum(e.dropped for e in encoded)} tokens in all"
        )
    return line
