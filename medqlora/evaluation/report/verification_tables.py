"""The tables and figures of an exported model against the live one."""

from medqlora.evaluation.report.markup import Markup, element, joined, picture, table
from medqlora.evaluation.report.page_tables import interval_text
from medqlora.evaluation.report.plots import svg
from medqlora.evaluation.report.verification_plots import POINTS_SHOWN, verification_figures
from medqlora.evaluation.report.wording import p_value, percent, points, span
from medqlora.evaluation.verification import Verification

#: changed decisions in the page; the report's JSON has all
CHANGES_SHOWN = 200

_CAPTIONS = {
    "differences": "Over all questions and labels. The dotted lines are the largest accepted difference, where they "
    "are near.",
    "log_probabilities": f"One point for each label of a question, at most {POINTS_SHOWN:,}: the largest differences. "
    "On the diagonal nothing has changed.",
}


def verification_contents(verification: Verification) -> dict[str, Markup | None]:
    """Heading → tables and figures of a comparison."""
    return {
        "Both models": accuracy_table(verification),
        "Differences and limits": difference_table(verification),
        "Figures of the differences": difference_figures(verification),
        "Changed decisions": changed_table(verification),
    }


def accuracy_table(verification: Verification) -> Markup:
    """Both accuracies with their intervals, and the paired test."""
    accuracy = verification.accuracy
    if accuracy is None:
        return element("p", "None of the questions has a known answer: the accuracies are unknown.")
    rows = [
        ["Live model", percent(accuracy.live), interval_text(accuracy.live_ci95)],
        ["Exported model", percent(accuracy.exported), interval_text(accuracy.exported_ci95)],
    ]
    p, pairs = accuracy.mcnemar_p, accuracy.pairs
    sentence = (
        f"Difference: {points(accuracy.difference)} points ({span(accuracy.difference_ci95, signed=True)}), exact "
        f"McNemar p {'' if p < 0.001 else '= '}{p_value(p)}. Right only when exported: {pairs['only_this_right']}; "
        f"right only live: {pairs['only_base_right']}; both right: {pairs['both_right']}; both wrong: "
        f"{pairs['both_wrong']}."
    )
    return joined([table(["", "accuracy", "95% interval"], rows), element("p", sentence)])


def difference_table(verification: Verification) -> Markup:
    """Each measure beside what is accepted, and the verdict."""
    limits, firm = verification.limits, verification.firm_changes
    rows: list[list[object]] = [
        ["mean difference, nats", nats(verification.mean_difference), ""],
        ["largest difference, nats", nats(verification.largest_difference), f"{limits.difference:g}"],
        ["mean KL, nats", nats(verification.mean_kl), ""],
        ["changed decisions", len(verification.changed), ""],
        [f"changed decisions with a margin above {limits.margin:.2g}", len(firm), "0"],
    ]
    return joined(
        [
            table(["", "measured", "limit"], rows),
            element("p", "Verdict: ", element("b", verdict_of(verification)), "."),
        ]
    )


def difference_figures(verification: Verification) -> Markup | None:
    """Histogram and scatter plot; None without finite values."""
    drawn = [
        picture(svg(figure), f"{name.replace('_', ' ')}. {_CAPTIONS[name]}", _CAPTIONS[name])
        for name, figure in verification_figures(verification).items()
    ]
    return element("div", *drawn, class_="figures") if drawn else None


def changed_table(verification: Verification) -> Markup:
    """The changed decisions with their questions, both decisions and both margins."""
    if not verification.changed:
        return element("p", "There were none.")
    rows: list[list[object]] = [
        [
            change.question or change.id,
            change.id,
            change.gold or "unknown",
            change.live,
            f"{change.margin:.3f}",
            change.exported,
            f"{change.exported_margin:.3f}",
        ]
        for change in verification.changed[:CHANGES_SHOWN]
    ]
    head = ["question", "id", "right answer", "live", "margin", "exported", "margin"]
    parts = [table(head, rows)]
    if len(verification.changed) > CHANGES_SHOWN:
        parts.append(
            element("p", f"The first {CHANGES_SHOWN} of {len(verification.changed)}.", class_="soft")
        )
    return joined(parts)


def nats(value: float) -> str:
    """A difference with two significant digits."""
    return f"{value:.2g}"


def verdict_of(verification: Verification | None) -> str:
    """The verdict in a few words."""
    if verification is None:
        return "not verified"
    return "differs from the live model" if verification.faults else "accepted"
