"""The tables of `report.html`."""

from collections.abc import Mapping, Sequence
from typing import Any

from medqlora.evaluation.report.markup import (
    Markup,
    element,
    joined,
    table,
)
from medqlora.evaluation.report.wording import percent, points, span


def comparison_table(report: Mapping[str, Any]) -> Markup:
    """This model, the bare base, human annotators and the majority, side by side."""
    by_text = report["decided_by"] == "generation"
    rows: list[list[object]] = [_model_row("This model", report, reads_text=by_text)]
    base = report.get("base")
    if report.get("generation") and report["decided_by"] == "likelihood":
        rows.append(_model_row("This model, its generated text", report["generation"], reads_text=True))
    if base:
        rows.append(_model_row("Bare base", base, reads_text=by_text))
        if base.get("generation") and report["decided_by"] == "likelihood":
            rows.append(_model_row("Bare base, its generated text", base["generation"], reads_text=True))
    for setting, human in (report.get("human") or {}).items():
        rows.append(_model_row(f"Human annotator, {setting.replace('_', ' ')}", human))
    if report.get("majority_accuracy") is not None:
        rows.append(["Always the most frequent answer", percent(report["majority_accuracy"]), "", "", "", ""])
    parts = [table(["", "accuracy", "95% interval", "macro-F1", "95% interval", "unreadable"], rows)]
    if base:
        p = report["mcnemar_p"]
        words = f"Difference: {points(base['difference'])} points ({span(base['difference_ci95'], signed=True)}), "
        words += f"exact McNemar p {'< 0.001' if p < 0.001 else f'= {p:.3f}'}."
        if base.get("pairs"):
            pairs = base["pairs"]
            words += f" Right only here: {pairs['only_this_right']}; right only in the base: {pairs['only_base_right']}"
            words += f"; both right: {pairs['both_right']}; both wrong: {pairs['both_wrong']}."
        parts.append(element("p", words))
    return joined(parts)


def _model_row(name: str, block: Mapping[str, Any], *, reads_text: bool = False) -> list[object]:
    unread = block.get("unparsed_fraction") if reads_text else None
    f1, interval = block.get("macro_f1"), block.get("macro_f1_ci95")
    return [
        name,
        percent(block["accuracy"]),
        interval_text(block["accuracy_ci95"]),
        "" if f1 is None else percent(f1),
        "" if interval is None else interval_text(interval),
        "" if unread is None else percent(unread),
    ]


def interval_text(interval: Sequence[float]) -> str:
    """[0.708, 0.784] → "70.8 to 78.4"."""
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}"


def class_table(report: Mapping[str, Any]) -> Markup | None:
    """Precision, recall and F1 of each label."""
    if not report.get("per_class"):
        return None
    base = (report.get("base") or {}).get("per_class") or {}
    head = [
        "answer",
        "precision",
        "recall",
        "F1",
        *(["F1 of the base"] if base else []),
        "right answers",
        "decisions",
    ]
    rows = []
    for label, row in report["per_class"].items():
        numbers: list[object] = [f"{row[key]:.3f}" for key in ("precision", "recall", "f1")]
        if base:
            numbers.append(f"{base[label]['f1']:.3f}")
        rows.append([label, *numbers, row["support"], row["predicted"]])
    return table(head, rows)


def calibration_table(report: Mapping[str, Any]) -> Markup | None:
    """ECE, Brier and NLL of model and base and after the temperature; then selective answering."""
    if report.get("ece") is None:
        return None
    rows = [_calibration_row("This model", report)]
    if report.get("temperature"):
        found = report["temperature"]
        name = f"This model at temperature {found['value']:.2f}, fitted on {found['fitted_on']} dev questions"
        rows.append(_calibration_row(name, found["after"]))
    if report.get("base"):
        rows.append(_calibration_row("Bare base", report["base"]))
    chosen = report["selective"]
    sentences = [
        f"Answering only the surest {chosen['coverage']:.0%} ({chosen['answered']} questions, confidence from "
        f"{percent(chosen['confidence_at_coverage'])}) gives {percent(chosen['accuracy_at_coverage'])} accuracy.",
        f"The labels together hold {percent(report['label_mass'])} of the model's probability on average.",
    ]
    if report.get("threshold"):
        sentences.append(_threshold(report["threshold"]))
    if report.get("rationale"):
        rationale = report["rationale"]
        sentences.append(
            f"Generated rationales share wording with the reference: mean ROUGE-L {rationale['rouge_l']:.3f} over "
            f"{rationale['n']} questions ({rationale['without_rationale']} without a rationale). {rationale['note']}."
        )
    return joined(
        [table(["", "ECE", "Brier", "NLL (nats)"], rows), *(element("p", one) for one in sentences)]
    )


def _threshold(found: Mapping[str, Any]) -> str:
    """How the threshold that was saved with the adapter holds on these questions."""
    if not found["answered"]:
        return "Under the threshold saved with the adapter every answer is uncertain."
    return (
        f"Under the threshold saved with the adapter (confidence {percent(found['threshold'])} at temperature "
        f"{found['temperature']:.2f}, for at most {percent(found['target_risk'])} wrong) {found['answered']} of "
        f"{found['n']} questions are answered, {percent(found['risk'])} of them wrongly "
        f"({interval_text(found['risk_ci95'])}); the others are uncertain."
    )


def _calibration_row(name: str, block: Mapping[str, Any]) -> list[object]:
    return [name, *(f"{block[key]:.3f}" for key in ("ece", "brier", "nll"))]


def group_table(rows: Sequence[Mapping[str, Any]], name: str) -> Markup | None:
    """Groups with their counts, accuracies and intervals."""
    if not rows:
        return None
    return table(
        [name, "questions", "accuracy", "95% interval"],
        [
            [
                f"{row['group']} ({row['merged_groups']} small groups)"
                if row.get("merged_groups")
                else row["group"],
                row["n"],
                percent(row["accuracy"]),
                interval_text(row["accuracy_ci95"]),
            ]
            for row in rows
        ],
    )
