"""What TensorBoard shows of a validation beside its scores: some questions with their answers, and who is mistaken."""

import re
from collections.abc import Iterable, Mapping, Sequence

from medqlora.evaluation.statistics.intervals import confusion_counts
from medqlora.records import Prediction, Record
from medqlora.utils.terminal import printable_line

#: questions in the table
_SHOWN = 12
#: characters of a cell, at most
_LONGEST = 400
#: labels of a confusion matrix, at most: a figure of more can't be read
_MOST_LABELS = 12


def log_validation(
    loggers: Iterable[object], predictions: Sequence[Prediction], records: Mapping[str, Record], step: int
) -> None:
    """Writes a table of questions to the loggers that take text, and the confusion matrix to those that take figures.

    The questions are the same at each validation: the first ones by id.
    """
    for logger in loggers:
        writer = getattr(logger, "experiment", None)
        add_text, add_figure = (getattr(writer, name, None) for name in ("add_text", "add_figure"))
        if add_text is not None:
            add_text("val/samples", samples_table(predictions, records), step)
        if add_figure is not None and (figure := confusion_figure(predictions)) is not None:
            add_figure("val/confusion", figure, step, close=False)


def samples_table(predictions: Sequence[Prediction], records: Mapping[str, Record]) -> str:
    """Question, right answer, decision (✓ right, ✗ wrong), its probability and the text, as a Markdown table."""
    lines = [
        "| id | question | right answer | decision | p | generated text |",
        "|---|---|---|---|---|---|",
    ]
    for one in sorted(predictions, key=lambda one: one.id)[:_SHOWN]:
        decision = one.decision if one.logprobs else one.parsed
        mark = "✓" if decision == one.gold else "✗"
        cells = [
            one.id,
            records[one.id].question,
            one.gold or "",
            f"{mark} {'unreadable' if decision is None else decision}" if one.labels else "",
            "" if one.confidence is None else f"{one.confidence:.3f}",
            one.text or "",
        ]
        lines.append(f"| {' | '.join(map(_cell, cells))} |")
    return "\n".join(lines)


def confusion_figure(predictions: Sequence[Prediction]) -> object | None:
    """The confusion matrix by label likelihood, or of the generated text; None for free answers or many labels."""
    labels = list(dict.fromkeys(label for one in predictions for label in one.labels))
    if not labels or len(labels) > _MOST_LABELS:
        return None
    from medqlora.evaluation.report.plots import confusion

    by_likelihood = all(one.logprobs for one in predictions)
    decisions = [one.decision if by_likelihood else one.parsed for one in predictions]
    counts = confusion_counts([str(one.gold) for one in predictions], decisions, labels)
    matrix = [[int(count) for count in row] for row in counts.tolist()]
    how = "by likelihood" if by_likelihood else "read from the text"
    return confusion(
        {"rows_gold": labels, "columns_decision": [*labels, "unreadable"], "counts": matrix},
        f"Validation, {how}",
    )


def _cell(text: str) -> str:
    """A text of data as the text of a Markdown cell: no markup, no HTML, one line."""
    line = printable_line(" ".join(text.split()))
    line = line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", line)
