"""A line that describes a set, and the set's content-free question."""

from collections import Counter
from collections.abc import Callable, Sequence

from medqlora.data.encoding.image_slots import ImageReader
from medqlora.data.sample import Sample
from medqlora.records import Encoded, Record


def content_free(records: Sequence[Record]) -> Record | None:
    """The set's question without content ("N/A"), see https://arxiv.org/abs/2102.09690; None where labels differ."""
    first = records[0] if records else None
    if first is None or not first.labels or any(record.labels != first.labels for record in records):
        return None
    return Record(
        id="content-free",
        question="N/A",
        contexts=("N/A",) if any(record.contexts for record in records) else (),
        options=dict.fromkeys(first.options, "N/A"),
        labels=first.labels,
    )


def describe(
    source: str, split: str, records: list[Record], encoded: list[Encoded], sample: Sample | None = None
) -> str:
    """One line: the counts of questions and answers, their length in tokens, and how many were shortened."""
    answers = Counter(record.answer for record in records if record.labels)
    labels = dict.fromkeys(label for record in records for label in record.labels)
    parts = [f"{answers[label]} {label}" for label in labels if answers[label]]
    lengths = [len(example.prompt) + len(example.completion) for example in encoded]
    shortened = sum(example.dropped > 0 for example in encoded)
    line = f"{source} {split}{f' {sample}' if sample else ''}: {len(records)} question{'s' * (len(records) != 1)}"
    line += f" ({', '.join(parts[:6])})" if parts else ""
    line += f", {sum(lengths) / len(lengths):.0f} tokens each (at most {max(lengths)})"
    if shortened:
        dropped = sum(example.dropped for example in encoded)
        line += f"; the context of {shortened} was shortened, by {dropped} tokens in all"
    return line


def report_unread_images(
    source: str,
    split: str,
    records: Sequence[Record],
    images: ImageReader | None,
    report: Callable[[str], None],
) -> None:
    """Warns of images that a base for text alone leaves out."""
    count = sum(bool(record.images) for record in records)
    if count and images is None:
        report(
            f"Warning: {count} of {len(records)} {source} {split} questions have images, which this base does not "
            "read: use --model.backend medqlora.models.VisionLanguage"
        )
