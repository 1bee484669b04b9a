"""`report.html` of several question sets: the average on top, then each set's own report, folded."""

from collections.abc import Mapping, Sequence

from medqlora.evaluation.metrics.suite_scores import HOLM, INTERVALS, Tested
from medqlora.evaluation.report.context import Context
from medqlora.evaluation.report.markup import Markup, element, fields, joined, picture, table, text
from medqlora.evaluation.report.page import folded, headline_words, page, section, set_report, training_curves
from medqlora.evaluation.report.page_tables import with_interval
from medqlora.evaluation.report.plots import svg
from medqlora.evaluation.report.suite_plots import suite_figure
from medqlora.evaluation.report.wording import p_value, percent, points, span
from medqlora.evaluation.report_data import BaseScores, MacroAverage, Suite

_CAPTION = "Accuracy with 95% interval on each set, and the mean in which each set counts the same."


def render_suite(
    tested: Sequence[Tested],
    suite: Suite,
    run_info: Mapping[str, object],
    context: Context = Context(),  # noqa: B008  # a NamedTuple does not change
) -> str:
    """The page.

    Args:
        tested: the sets, the run's own first; bases in the order of the predictions.
        suite: `suite_scores` of them.
        run_info: what is needed to repeat the run, as plain values.
        context: the header's facts and the training curves.
    """
    average = suite["macro_average"]
    first = tested[0].scores
    figure = picture(svg(suite_figure(tested)), f"question sets. {_CAPTION}", _CAPTION, wide=True)
    sections = [
        *section("The question sets", suite_sets(tested, suite)),
        *section("Figure", element("div", figure, class_="figures")),
        *section("Training curves", training_curves(context)),
        *section("What the average means", fields(_definitions())),
        element("h2", "Each set"),
        *(
            folded(
                f"{one.name}: {headline_words(one.scores)}, {one.scores.n} questions"
                if one.scores.decided_by == "exact_match"
                else f"{one.name}: {percent(one.scores.accuracy)} of {one.scores.n}",
                set_report(one.scores, one.predictions, one.records, one.base, one.live),
            )
            for one in tested
        ),
        *section("To repeat this run", fields(run_info)),
    ]
    return page(
        title=f"{len(tested)} question sets: {percent(average['accuracy'])} macro-average accuracy",
        subtitle=f"{suite['n']} questions; "
        f"{f'adapter {first.adapter}' if first.adapter else 'bare base, no adapter'}; seed {first.seed}",
        headline=_headline(average),
        cautions=[_verdict(average), "Sets differ in what they ask: read the average with its parts."],
        sections=joined(sections),
        context=context,
        scripted=True,
    )


def suite_sets(tested: Sequence[Tested], suite: Suite) -> Markup:
    """A row for each set, and the macro average last."""
    rows = [_row(one, suite["mcnemar_p_holm"].get(one.name)) for one in tested]
    average = suite["macro_average"]
    rows.append(
        [
            element("b", "Macro average"),
            suite["n"],
            with_interval(element("b", percent(average["accuracy"])), average["accuracy_ci95"]),
            *_difference(average["base_accuracy"], average["difference"], average["difference_ci95"]),
            *[""] * 5,
        ]
    )
    head = "question set,n,accuracy,base,difference,p (Holm),p,majority,macro-F1,ECE"
    # a phone shows the first columns alone: the others stand in each set's own report
    note = element("p", "Below each value its 95% interval.", class_="small soft")
    return element("div", table(head.split(","), rows), note, class_="sets")


def _row(one: Tested, adjusted: float | None) -> list[object]:
    scores = one.scores
    base = scores.base or BaseScores()
    return [
        one.name,
        scores.n,
        with_interval(percent(scores.accuracy), scores.accuracy_ci95),
        *_difference(base.get("accuracy"), base.get("difference"), base.get("difference_ci95")),
        "" if adjusted is None else p_value(adjusted),
        "" if scores.mcnemar_p is None else p_value(scores.mcnemar_p),
        "" if scores.majority_accuracy is None else percent(scores.majority_accuracy),
        "" if scores.macro_f1 is None else percent(scores.macro_f1),
        "" if scores.ece is None else f"{scores.ece:.3f}",
    ]


def _difference(
    base: float | None, difference: float | None, interval: Sequence[float] | None
) -> list[object]:
    if base is None or difference is None or interval is None:
        return ["", ""]
    span_text = " to ".join(points(end) for end in interval)
    return [percent(base), joined((points(difference), element("small", span_text)), " ")]


def _headline(average: MacroAverage) -> Markup:
    parts: list[object] = [element("b", percent(average["accuracy"]))]
    parts.append(f" macro-average accuracy, {span(average['accuracy_ci95'])}")
    difference, interval = average["difference"], average["difference_ci95"]
    if difference is not None and interval is not None:
        parts.append(f"; {points(difference)} points against the bare base ({span(interval, signed=True)})")
    return element("p", *parts, class_="headline")


def _verdict(average: MacroAverage) -> str:
    if average["difference_ci95"] is None:
        return "Not every set was asked of the bare base too, so nothing is said of a difference."
    low, high = average["difference_ci95"]
    if low > 0 or high < 0:
        side = "better" if low > 0 else "worse"
        return f"On the average it is {side} than the bare base, by more than chance explains."
    return "The average difference from the bare base may be chance."


def _definitions() -> dict[str, Markup]:
    return {
        "macro average": text("mean of the sets' accuracies, each set counting the same whatever its size."),
        "interval of the average": text(f"{INTERVALS}. A set answered all right or all wrong adds no width."),
        "p": text("exact McNemar test against the bare base on the same questions."),
        "p (Holm)": text(f"{HOLM}. Claim a set's difference by this one."),
    }
