"""The page of `medqlora compare`: settings that differ, curves together, test figures with paired tests, cost."""

from collections.abc import Mapping, Sequence

from medqlora.evaluation.report.context import Curve
from medqlora.evaluation.report.markup import Markup, element, fields, joined, picture, table
from medqlora.evaluation.report.page import page, section
from medqlora.evaluation.report.plots import svg
from medqlora.evaluation.report.run_curves import curve_figures
from medqlora.evaluation.report.side_by_side_table import paired_table
from medqlora.evaluation.report.wording import caution, percent
from medqlora.evaluation.report_data import PairedRow
from medqlora.evaluation.side_by_side import METHOD

_CAPTIONS = {
    "training_loss": "The training loss of each run.",
    "accuracy": "At each validation. Runs with other validation questions can't be compared by it.",
    "macro_f1": "Mean F1 of the labels, at each validation.",
    "loss": "Loss of the validation questions.",
}
_LONGEST = 120


def render_runs(
    names: Sequence[str],
    differing: Mapping[str, Sequence[str]],
    curves: Mapping[str, Mapping[str, Curve]],
    rows: Sequence[PairedRow],
    best: Mapping[str, Sequence[str]],
    costs: Mapping[str, Sequence[str]],
    notes: Sequence[str],
    run_info: Mapping[str, object],
) -> str:
    """The page.

    Args:
        names: of the runs, in their order.
        differing: setting → its value in each run.
        curves: name of the run → tag → curve.
        rows: the tested runs on the questions of all of them; empty where fewer than two were.
        best: validation score → its best value in each run.
        costs: name with its unit → its value in each run.
        notes: what could not be compared, in sentences.
        run_info: what is needed to repeat it.
    """
    lead = rows[0] if rows else None
    headline = [element("b", str(len(names))), " runs"]
    if lead is not None:
        headline.append(f"; {lead['name']}: {percent(lead['accuracy'])} accuracy on {lead['n']} questions")
    return page(
        title=f"{len(names)} runs compared",
        subtitle=", ".join(names),
        headline=element("p", *headline, class_="headline"),
        cautions=[*([] if lead is None else [caution(lead["n"])]), *notes],
        sections=joined(
            (
                *section("Test figures", _tests(rows)),
                *section("Settings that differ", _by_run(names, differing, "setting")),
                *section("Best validation scores", _by_run(names, best, "")),
                *section("Cost", _by_run(names, costs, "")),
                *section("Curves", _curves(curves)),
                *section("To repeat it", fields(run_info)),
            )
        ),
    )


def _tests(rows: Sequence[PairedRow]) -> Markup | None:
    if not rows:
        return None
    note = f"On the questions of all of them. Differences are from the first row; p: {METHOD}."
    return joined([paired_table(rows, "run"), element("p", note, class_="small soft")])


def _by_run(names: Sequence[str], values: Mapping[str, Sequence[str]], first: str) -> Markup | None:
    if not values:
        return None
    rows = [
        [name, *(value if len(value) <= _LONGEST else f"{value[:_LONGEST]}…" for value in of_run)]
        for name, of_run in values.items()
    ]
    return element("div", table([first, *names], rows), class_="runs")


def _curves(curves: Mapping[str, Mapping[str, Curve]]) -> Markup | None:
    drawn = curve_figures(curves)
    parts = [
        picture(svg(figure), f"{name.replace('_', ' ')}. {_CAPTIONS[name]}", _CAPTIONS[name])
        for name, figure in drawn.items()
    ]
    return element("div", *parts, class_="figures") if parts else None
