"""`cv_report.html`: a cross-validation's page."""

from collections.abc import Mapping

from medqlora.evaluation.aggregate_data import Spread
from medqlora.evaluation.cross_validation import CrossValidation, GroupComparison
from medqlora.evaluation.report.context import Curve
from medqlora.evaluation.report.markup import Markup, element, fields, joined, picture, table
from medqlora.evaluation.report.page import page, section
from medqlora.evaluation.report.page_tables import interval_text
from medqlora.evaluation.report.plots import confusion, svg
from medqlora.evaluation.report.run_curves import curve_figures
from medqlora.evaluation.report.wording import caution, p_value, percent, points, span

_CAPTIONS = {
    "training_loss": "Each fold's training loss.",
    "accuracy": "At each validation, on the fold's own validation questions.",
    "macro_f1": "Mean F1 of the labels, at each validation.",
    "loss": "Loss of the validation questions.",
    "confusion": "All out-of-fold predictions together. Rows are the right answers, columns the decisions.",
}
_SPREAD = (
    "Mean, sd and interval (Student's t) are over the folds. Folds share most of their training questions, so the "
    "interval is too narrow rather than too wide (Bengio and Grandvalet 2004)."
)
_CHOSEN = (
    "Each fold's adapter is its best checkpoint, chosen by the same validation questions that are scored here: the "
    "scores are somewhat too high. Judge by the test set; compare recipes here."
)


def render_cross_validation(
    found: CrossValidation, curves: Mapping[str, Mapping[str, Curve]], run_info: Mapping[str, object]
) -> str:
    """The page.

    Args:
        found: the figures.
        curves: the folds' learning curves: name of the fold → tag → curve.
        run_info: what is needed to repeat it.
    """
    pooled, n = found["pooled"], found["pooled"]["n"]
    spread = found["accuracy"]
    headline = [
        element("b", percent(pooled["accuracy"])),
        f" out-of-fold accuracy on {n} questions, {span(pooled['accuracy_ci95'] or [])}",
    ]
    if spread["sd"] is not None:
        headline.append(
            f"; standard deviation {100 * spread['sd']:.1f} points over {len(found['folds'])} folds"
        )
    compared = found.get("compared")
    parts = [
        *section("Mean and spread over the folds", _spreads(found)),
        *section("Each fold", _folds(found)),
        *section("By answer", _classes(found)),
        *section("Against another cross-validation", None if compared is None else comparison(compared)),
        *section("Learning curves", _figures(found, curves)),
        *section("Calibration", _calibration(found)),
        *section("To repeat it", fields(run_info)),
    ]
    return page(
        title=f"Cross-validation: {percent(pooled['accuracy'])} accuracy",
        subtitle=f"{n} development questions, each answered by the adapter that did not train on it; seed 0",
        headline=element("p", *headline, class_="headline"),
        cautions=[_CHOSEN, caution(n)],
        sections=joined(parts),
    )


def _spreads(found: CrossValidation) -> Markup:
    rows = [["accuracy", *_cells(found["accuracy"])], ["macro-F1", *_cells(found["macro_f1"])]]
    head = ["", "mean", "sd", "95% of the mean (t)", "smallest", "largest"]
    return joined([table(head, rows), element("p", _SPREAD, class_="small soft")])


def _cells(spread: Spread) -> list[str]:
    interval = spread["mean_ci95"]
    return [
        percent(spread["mean"]),
        "" if spread["sd"] is None else f"{100 * spread['sd']:.1f}",
        "" if interval is None else interval_text(interval),
        percent(spread["min"]),
        percent(spread["max"]),
    ]


def _folds(found: CrossValidation) -> Markup:
    rows = [
        [
            row["fold"],
            row["n"],
            percent(row["accuracy"]),
            interval_text(row["accuracy_ci95"]),
            percent(row["macro_f1"]),
            row["run"],
        ]
        for row in found["each"]
    ]
    pooled = found["pooled"]
    majority = pooled["majority_accuracy"]
    rows.append(
        [
            "all",
            pooled["n"],
            percent(pooled["accuracy"]),
            interval_text(pooled["accuracy_ci95"] or []),
            percent(pooled["macro_f1"] or 0.0),
            "",
        ]
    )
    head = ["fold", "questions", "accuracy", "95% interval", "macro-F1", "run"]
    lines = [table(head, rows)]
    if majority is not None:
        lines.append(
            element("p", f"Always the most frequent answer: {percent(majority)}.", class_="small soft")
        )
    return joined(lines)


def _classes(found: CrossValidation) -> Markup:
    pooled = found["pooled"]["per_class"] or {}
    rows: list[list[object]] = []
    for label, scores in found["per_class"].items():
        row = pooled.get(label)
        cells = [
            f"{scores[name]['mean']:.3f}"
            + ("" if scores[name]["sd"] is None else f" ± {scores[name]['sd']:.3f}")
            for name in ("precision", "recall", "f1")
        ]
        rows.append(
            [
                label,
                *cells,
                *(("", "", "") if row is None else (f"{row['f1']:.3f}", row["support"], row["predicted"])),
            ]
        )
    head = ["answer", "precision", "recall", "F1", "pooled F1", "right answers", "decisions"]
    note = "Mean over the folds ± standard deviation; pooled over all questions."
    return joined([table(head, rows), element("p", note, class_="small soft")])


def comparison(compared: GroupComparison) -> Markup:
    """Two cross-validations on the same questions."""
    paired = compared["paired"]
    p, pairs = paired["mcnemar_p"], paired["pairs"]
    rows: list[list[object]] = [
        ["this one", percent(compared["accuracy"])],
        [compared["against"], percent(compared["other_accuracy"])],
    ]
    low, high = paired["difference_ci95"]
    sure = p < 0.05 and not low <= 0 <= high
    verdict = (
        f"{'better' if paired['difference'] > 0 else 'worse'}, by more than chance explains"
        if sure
        else "may be chance"
    )
    shown = f"{points(paired['difference'])} points ({span(paired['difference_ci95'], signed=True)})"
    lines = [
        f"Difference: {shown}, exact McNemar p {'' if p < 0.001 else '= '}{p_value(p)}: {verdict}.",
        f"Right only here: {pairs['only_this_right']}; right only there: {pairs['only_base_right']}; both right: "
        f"{pairs['both_right']}; both wrong: {pairs['both_wrong']}.",
    ]
    by_fold = compared["by_fold"]
    if by_fold is not None and by_fold["mean_ci95"] is not None:
        shown = f"{points(by_fold['mean'])} points on average ({span(by_fold['mean_ci95'], signed=True)}"
        lines.append(f"By fold: {shown}, Student's t over {len(by_fold['each'])} folds).")
    head = ["", f"accuracy on the {compared['n']} questions of both"]
    return joined([table(head, rows), *(element("p", line) for line in lines)])


def _figures(found: CrossValidation, curves: Mapping[str, Mapping[str, Curve]]) -> Markup | None:
    drawn = curve_figures(curves)
    if matrix := found["pooled"]["confusion_matrix"]:
        drawn["confusion"] = confusion(matrix, "Out-of-fold decisions")
    parts = [
        picture(svg(figure), f"{name.replace('_', ' ')}. {_CAPTIONS[name]}", _CAPTIONS[name])
        for name, figure in drawn.items()
    ]
    return element("div", *parts, class_="figures") if parts else None


def _calibration(found: CrossValidation) -> Markup:
    values = found["calibration"]
    n, target = values["n"], values["target_risk"]
    lines = [
        f"ECE of the confidence as scored: {found['ece']:.3f}. Temperature {_number(values['temperature'])}, fitted on "
        f"all {n} out-of-fold predictions; it is saved with each fold's adapter in place of that of its own validation "
        "questions."
    ]
    interval = values["risk_ci95"]
    if isinstance(interval, (list, tuple)):
        at_most = f"for at most {percent(_value(target))} wrong"
        shown = f"{values['answered']} of {n} questions, {values['wrong']} of them wrongly ({interval_text(interval)})"
        start = f"Answers are given from a confidence of {_number(values['threshold'])} on ({at_most})"
        lines.append(f"{start}: {shown}; the others are uncertain.")
    else:
        lines.append(
            f"No confidence is enough for at most {percent(_value(target))} wrong: every answer is uncertain."
        )
    return joined([element("p", line) for line in lines])


def _value(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0


def _number(value: object) -> str:
    return f"{_value(value):.3g}"


def cross_validation_table(found: CrossValidation) -> str:
    """The figures for the terminal."""
    pooled, spread = found["pooled"], found["accuracy"]
    sd = "" if spread["sd"] is None else f", sd {100 * spread['sd']:.1f} points over the folds"
    lines = [
        f"Out of fold: {pooled['n']} questions of {len(found['folds'])} folds",
        f"{'fold':<8}{'questions':>10}{'accuracy':>10}{'macro-F1':>10}",
    ]
    lines += [
        f"{row['fold']:<8}{row['n']:>10}{percent(row['accuracy']):>10}{percent(row['macro_f1']):>10}"
        for row in found["each"]
    ]
    total = f"{percent(pooled['accuracy']):>10}{percent(pooled['macro_f1'] or 0.0):>10}"
    lines.append(f"{'all':<8}{pooled['n']:>10}{total}  {span(pooled['accuracy_ci95'] or [])}{sd}")
    if pooled["majority_accuracy"] is not None:
        lines.append(f"Always the majority: {percent(pooled['majority_accuracy'])}")
    compared = found.get("compared")
    if compared is not None:
        paired = compared["paired"]
        shown = f"{points(paired['difference'])} points ({span(paired['difference_ci95'], signed=True)})"
        lines.append(
            f"Against {compared['against']}: {shown}, exact McNemar p {p_value(paired['mcnemar_p'])}"
        )
    return "\n".join(lines)
