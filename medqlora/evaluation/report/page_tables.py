"""The tables of `report.html`."""

from collections.abc import Sequence

from medqlora.evaluation.report.markup import Markup, element, joined, table
from medqlora.evaluation.report.wording import metric_rows, p_value, percent, points, span
from medqlora.evaluation.report_data import (
    Accuracies,
    CalibrationScores,
    Comparison,
    Group,
    ModelScores,
    Report,
    Threshold,
)


def comparison_table(report: Report) -> Markup:
    """This model, the base model, human annotators and the majority, side by side."""
    by_text, by_likelihood = (report["decided_by"] == kind for kind in ("generation", "likelihood"))
    rows = [_model_row("This model", report, reads_text=by_text)]
    base, generated = report["base"], report["generation"]
    if generated and by_likelihood:
        rows.append(_model_row("This model, its generated text", generated, reads_text=True))
    if base:
        rows.append(_model_row("Bare base", base, reads_text=by_text))
        if (generated := base["generation"]) and by_likelihood:
            rows.append(_model_row("Bare base, its generated text", generated, reads_text=True))
    for setting, human in report["human"].items():
        rows.append(_model_row(f"Human annotator, {setting.replace('_', ' ')}", human))
    if (majority := report["majority_accuracy"]) is not None:
        rows.append(["Always the most frequent answer", percent(majority), "", ""])
    head = ["", "accuracy", "macro-F1", "unreadable"]
    if not any(row[-1] for row in rows):
        head, rows = head[:-1], [row[:-1] for row in rows]
    parts = [table(head, rows), element("p", "Below each value its 95% interval.", class_="small soft")]
    if base:
        parts.append(element("p", _difference(base)))
    return joined(parts)


def _difference(base: Comparison) -> str:
    p, pairs = base["mcnemar_p"], base["pairs"]
    return (
        f"Difference: {points(base['difference'])} points ({span(base['difference_ci95'], signed=True)}), "
        f"exact McNemar p {'' if p < 0.001 else '= '}{p_value(p)}. "
        f"Right only here: {pairs['only_this_right']}; right only in the base: {pairs['only_base_right']}; "
        f"both right: {pairs['both_right']}; both wrong: {pairs['both_wrong']}."
    )


def _model_row(name: str, scores: Accuracies, *, reads_text: bool = False) -> list[object]:
    unparsed = scores.get("unparsed_fraction") if reads_text else None
    f1, interval = scores.get("macro_f1"), scores.get("macro_f1_ci95")
    return [
        name,
        with_interval(percent(scores["accuracy"]), scores["accuracy_ci95"]),
        "" if f1 is None else with_interval(percent(f1), interval),
        "" if unparsed is None else percent(unparsed),
    ]


def with_interval(value: str, interval: Sequence[float] | None) -> Markup:
    """A cell with its 95% interval below the value, so that a table fits a phone."""
    return joined((value, element("small", interval_text(interval))) if interval else (value,), " ")


def interval_text(interval: Sequence[float]) -> str:
    """[0.708, 0.784] → "70.8 to 78.4"."""
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}"


def class_table(report: Report) -> Markup | None:
    """Precision, recall and F1 of each label."""
    classes = report["per_class"]
    if not classes:
        return None
    base = (report["base"] or {}).get("per_class") or {}
    of_base = ["F1 of the base"] if base else []
    rows: list[list[object]] = [
        [
            label,
            *(f"{share:.3f}" for share in (row["precision"], row["recall"], row["f1"])),
            *([f"{base[label]['f1']:.3f}"] if base else []),
            row["support"],
            row["predicted"],
        ]
        for label, row in classes.items()
    ]
    return table(["answer", "precision", "recall", "F1", *of_base, "right answers", "decisions"], rows)


def calibration_table(report: Report) -> Markup | None:
    """ECE, Brier and NLL of both models and after the temperature; then selective prediction."""
    curve = report["selective"]
    if curve is None:
        return None
    rows = [_calibration_row("This model", report)]
    temperature = report["temperature"]
    if temperature and not temperature.get("why_not_fitted"):
        name = (
            f"This model at temperature {temperature['value']:.2f}, fitted on {temperature['fitted_on']} "
            "validation questions"
        )
        rows.append(_calibration_row(name, temperature["after"]))
    if base := report["base"]:
        rows.append(_calibration_row("Bare base", base))
    sentences = []
    if temperature and (why := temperature.get("why_not_fitted")):
        sentences.append(f"The temperature stays 1, as in the adapter's record: {why}.")
    sentences += [
        f"Answering only the surest {curve['coverage']:.0%} ({curve['answered']} questions, confidence from "
        f"{percent(curve['confidence_at_coverage'])}) gives {percent(curve['accuracy_at_coverage'])} accuracy.",
        f"The labels together hold {percent(report['label_mass'] or 0.0)} of the model's probability on average.",
    ]
    if threshold := report.get("threshold"):
        sentences.append(_threshold(threshold))
    if rationale := report["rationale"]:
        sentences.append(
            f"Generated rationales share wording with the reference: mean ROUGE-L {rationale['rouge_l']:.3f} over "
            f"{rationale['n']} questions ({rationale['without_rationale']} without a rationale). {rationale['note']}."
        )
    return joined(
        [table(["", "ECE", "Brier", "NLL (nats)"], rows), *(element("p", line) for line in sentences)]
    )


def _threshold(threshold: Threshold) -> str:
    """How the threshold that was saved with the adapter holds on these questions."""
    risk, interval = threshold["risk"], threshold["risk_ci95"]
    if risk is None or interval is None:
        return "Under the threshold saved with the adapter every answer is uncertain."
    return (
        f"Under the threshold saved with the adapter (confidence {percent(threshold['threshold'])} at temperature "
        f"{threshold['temperature']:.2f}, for at most {percent(threshold['target_risk'])} wrong) "
        f"{threshold['answered']} of {threshold['n']} questions are answered, {percent(risk)} of them wrongly "
        f"({interval_text(interval)}); the others are uncertain."
    )


def _calibration_row(name: str, scores: ModelScores | CalibrationScores) -> list[object]:
    return [name, f"{scores['ece']:.3f}", f"{scores['brier']:.3f}", f"{scores['nll']:.3f}"]


def metric_table(report: Report) -> Markup | None:
    """Registered metrics of this model and the base model; None without any."""
    base = report["base"] or {}
    rows = metric_rows(report.get("metrics", {}), base.get("metrics", {}))
    return table(["metric", "this model", "bare base"], rows) if rows else None


def group_table(rows: Sequence[Group], name: str) -> Markup | None:
    """Groups with their counts, accuracies and intervals."""
    if not rows:
        return None
    cells: list[list[object]] = []
    for row in rows:
        merged = row.get("merged_groups")
        group = f"{row['group']} ({merged} small groups)" if merged else row["group"]
        cells.append([group, row["n"], percent(row["accuracy"]), interval_text(row["accuracy_ci95"])])
    return table([name, "questions", "accuracy", "95% interval"], cells)
