"""The table of several models on the same questions, for a page and for the terminal."""

from collections.abc import Sequence

from medqlora.evaluation.report.markup import Markup, element, joined, table
from medqlora.evaluation.report.page_tables import interval_text
from medqlora.evaluation.report.wording import p_value, percent, points
from medqlora.evaluation.report_data import PairedRow, Report
from medqlora.evaluation.side_by_side import METHOD, verdict
from medqlora.utils.terminal import printable_line

_NAME = 34


def paired_table(rows: Sequence[PairedRow], first: str = "model") -> Markup:
    """A row a model: its scores, and the paired comparison with the first row."""
    cells: list[list[object]] = []
    for row in rows:
        difference, interval = row["difference"], row["difference_ci95"]
        p, adjusted = row["mcnemar_p"], row["mcnemar_p_holm"]
        cells.append(
            [
                row["name"],
                row["n"],
                percent(row["accuracy"]),
                interval_text(row["accuracy_ci95"]),
                percent(row["macro_f1"]),
                "" if difference is None else points(difference),
                "" if interval is None else " to ".join(points(end) for end in interval),
                "" if p is None else p_value(p),
                "" if adjusted is None else p_value(adjusted),
                verdict(row),
            ]
        )
    head = [
        first,
        "questions",
        "accuracy",
        "95% interval",
        "macro-F1",
        "difference",
        "95% interval",
        "p",
        "p (Holm)",
        "",
    ]
    return table(head, cells)


def side_by_side_section(report: Report) -> Markup | None:
    """The adapters of a test on the same questions; None where it has one alone."""
    rows = report.get("side_by_side")
    if not rows:
        return None
    note = f"Differences are from the first row; p: {METHOD}."
    return joined([paired_table(rows, "adapter"), element("p", note, class_="small soft")])


def paired_lines(rows: Sequence[PairedRow], first: str = "model") -> list[str]:
    """The same for the terminal."""
    lines = [f"{first:<{_NAME}}{'n':>6}{'accuracy':>10}{'macro-F1':>10}{'difference':>12}{'p (Holm)':>10}"]
    for row in rows:
        name = printable_line(row["name"])
        name = name if len(name) < _NAME else "…" + name[2 - _NAME :]
        difference, p = row["difference"], row["mcnemar_p_holm"]
        paired = (
            ""
            if difference is None or p is None
            else f"{points(difference):>12}{p_value(p):>10}  {verdict(row)}"
        )
        scores = f"{percent(row['accuracy']):>10}{percent(row['macro_f1']):>10}"
        lines.append(f"{name:<{_NAME}}{row['n']:>6}{scores}{paired}")
    return lines
