"""The page of `medqlora library compare`."""

from collections.abc import Mapping, Sequence

from medqlora.evaluation.report.markup import Markup, element, fields, joined
from medqlora.evaluation.report.page import page, section
from medqlora.evaluation.report.side_by_side_table import paired_table
from medqlora.evaluation.report.wording import caution, percent, smallest_difference
from medqlora.evaluation.report_data import PairedRow
from medqlora.evaluation.side_by_side import METHOD, verdict

#: what every comparison by topic says
FEW = (
    "A specialised adapter is called better only where the paired test says so. The 50 to 150 test questions that a "
    f"topic usually has rarely suffice: they show differences from about {smallest_difference(150)} to "
    f"{smallest_difference(50)} points on."
)


def render_library(
    overall: Sequence[PairedRow],
    topics: Mapping[str, Sequence[PairedRow]],
    listed: Mapping[str, Sequence[str]],
    run_info: Mapping[str, object],
) -> str:
    """The page.

    Args:
        overall: all adapters on all questions, the general one first.
        topics: specialised adapter → the general one's row and its own, on the questions of its topics.
        listed: specialised adapter → its topics.
        run_info: what is needed to repeat it.
    """
    general = overall[0]
    better = [name for name, rows in topics.items() if verdict(rows[1]) == "better"]
    said = (
        f"better on their own topics: {', '.join(better)}"
        if better
        else "no specialised adapter is shown to be better"
    )
    headline = [element("b", percent(general["accuracy"])), f" accuracy of the general adapter; {said}"]
    note = f"Differences are from the general adapter; p: {METHOD}."
    parts = [
        *section(
            "All questions",
            joined([paired_table(overall, "adapter"), element("p", note, class_="small soft")]),
        ),
        *section("Each specialised adapter on the questions of its topics", _topics(topics, listed)),
        *section("To repeat it", fields(run_info)),
    ]
    return page(
        title=f"A library of {len(overall) - any(row['name'] == 'routed' for row in overall)} adapters",
        subtitle=f"the same {general['n']} questions for each",
        headline=element("p", *headline, class_="headline"),
        cautions=[FEW, caution(general["n"])],
        sections=joined(parts),
    )


def _topics(topics: Mapping[str, Sequence[PairedRow]], listed: Mapping[str, Sequence[str]]) -> Markup:
    parts: list[Markup] = []
    for name, names in listed.items():
        parts.append(element("h3", f"{name}: {', '.join(names) or 'no topics'}"))
        rows = topics.get(name)
        if rows is None:
            parts.append(element("p", "No test question is of its topics."))
            continue
        n = rows[0]["n"]
        parts.append(paired_table(rows, "adapter"))
        parts.append(
            element(
                "p",
                f"{n} questions show a difference from about {smallest_difference(n)} points on.",
                class_="small soft",
            )
        )
    parts.append(
        element("p", f"p (Holm) is adjusted for the {len(topics)} specialised adapters.", class_="small soft")
    )
    return joined(parts)
