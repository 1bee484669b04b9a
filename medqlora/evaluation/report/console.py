"""The scores as a table for the terminal: at most 24 lines of 80 columns."""

from medqlora.evaluation.metrics.scores import Scores
from medqlora.evaluation.report.retrieval_page import leak_warning, retrieval_lines
from medqlora.evaluation.report.wording import cautions, metric_rows, p_value, percent, points, set_name, span
from medqlora.evaluation.report_data import Interval, Report
from medqlora.utils.terminal import printable_line

WIDTH = 80


def console_table(scores: Scores) -> str:
    """The headline, its baselines, and each class; plain text without a final newline."""
    report = scores.to_json()
    name = set_name(scores.dataset, scores.split)
    if scores.decided_by == "exact_match":
        return _free_answer_table(report, name)
    lines = [
        cut(f"{_heading(report, name)}, decided by {scores.decided_by.replace('_', ' ')}"),
        "-" * WIDTH,
    ]
    lines += [
        _line("accuracy", percent(scores.accuracy), span(scores.accuracy_ci95)),
        *_metric("macro-F1", scores.macro_f1, scores.macro_f1_ci95),
    ]
    base = scores.base
    if base:
        lines.append(_line("  bare base", percent(base["accuracy"]), span(base["accuracy_ci95"])))
        low, high = (points(end) for end in base["difference_ci95"])
        p = "-" if scores.mcnemar_p is None else p_value(scores.mcnemar_p)
        change = f"95% {low} to {high}, McNemar p {p}"
        lines.append(_line("  difference", points(base["difference"]), change))
    lines += _live(report)
    lines += map(cut, retrieval_lines(report))
    for setting, value in (scores.human_accuracy or {}).items():
        lines.append(_line(f"  human, {setting.replace('_', ' ')}", percent(value), ""))
    if scores.majority_accuracy is not None:
        lines.append(_line("  always the majority", percent(scores.majority_accuracy), ""))
    lines += _calibration(report)
    if generated := report.get("generation"):
        detail = f"{percent(scores.unparsed_fraction or 0.0)} unreadable, counted as wrong"
        lines.append(_line("generated text", percent(generated["accuracy"]), detail))
    lines += _registered(report, 19 - len(lines))
    classes = list((scores.per_class or {}).items())
    room = 20 - len(lines)
    if classes and room > 2:
        lines.append(f"{'class':<22}{'precision':>10}{'recall':>10}{'F1':>10}{'gold':>10}{'decided':>10}")
        for label, row in classes[: room - 1]:
            shares = f"{row['precision']:>10.3f}{row['recall']:>10.3f}{row['f1']:>10.3f}"
            name = "  " + printable_line(label)[:19]
            lines.append(f"{name:<22}{shares}{row['support']:>10}{row['predicted']:>10}")
    lines.append("-" * WIDTH)
    lines += map(cut, [*leak_warning(report), *cautions(report)])
    lines.append("Not medical advice.")
    return "\n".join(lines)


def _free_answer_table(report: Report, name: str) -> str:
    """Token F1, ROUGE-L and exact match of free answers, with the base model's."""
    lines = [cut(f"{_heading(report, name)}, free answers compared by their wording"), "-" * WIDTH]
    lines.append(_line("token F1", percent(report["token_f1"]), span(report["token_f1_ci95"])))
    base = report["base"]
    if base:
        lines.append(_line("  bare base", percent(base["token_f1"]), span(base["token_f1_ci95"])))
        change = span(base["token_f1_difference_ci95"], signed=True)
        lines.append(_line("  difference", points(base["token_f1_difference"]), change))
    lines.append(_line("ROUGE-L", f"{report['rouge_l']:.3f}", "shared wording, not truth"))
    if base:
        lines.append(_line("  bare base", f"{base['rouge_l']:.3f}", ""))
    lines.append(_line("exact match", percent(report["exact_match"]), span(report["exact_match_ci95"])))
    if base:
        lines.append(_line("  bare base", percent(base["accuracy"]), span(base["accuracy_ci95"])))
    lines += _registered(report, 19 - len(lines))
    lines += ["-" * WIDTH, *map(cut, cautions(report)), "Not medical advice."]
    return "\n".join(lines)


def _live(report: Report) -> list[str]:
    """The live adapter's accuracy on the same questions, and what has changed."""
    live = report.get("live")
    if not live:
        return []
    lines, accuracy, interval = [], live.get("live_accuracy"), live.get("live_accuracy_ci95")
    if accuracy is not None and interval is not None:
        lines.append(_line("  live adapter", percent(accuracy), span(interval)))
    difference, ends, p = (
        live.get("accuracy_difference"),
        live.get("accuracy_difference_ci95"),
        live.get("mcnemar_p"),
    )
    if difference is not None and ends is not None and p is not None:
        change = f"95% {points(ends[0])} to {points(ends[1])}, McNemar p {p_value(p)}"
        lines.append(_line("  difference", points(difference), change))
    moved = f"|log p difference| mean {live['mean_difference']:.2g}, largest {live['largest_difference']:.2g}"
    return [*lines, _line("  changed decisions", str(len(live["changed"])), moved)]


def _heading(report: Report, name: str) -> str:
    """The set with its questions; a sample's name says their number already."""
    return name if report.get("sample") else f"{name}: {report['n']} questions"


def _metric(name: str, value: float | None, interval: Interval | None) -> list[str]:
    return [] if value is None or interval is None else [_line(name, percent(value), span(interval))]


def _calibration(report: Report) -> list[str]:
    curve = report["selective"]
    if curve is None:
        return []
    lines = [
        _line("ECE", f"{report['ece']:.3f}", f"Brier {report['brier']:.3f}, NLL {report['nll']:.3f} nats")
    ]
    if (temperature := report["temperature"]) and not temperature.get("why_not_fitted"):
        after = temperature["after"]
        detail = f"Brier {after['brier']:.3f}, NLL {after['nll']:.3f} nats"
        lines.append(_line(f"  at temperature {temperature['value']:.2f}", f"{after['ece']:.3f}", detail))
    sure = f"{percent(curve['accuracy_at_coverage'])} right on the surest {curve['coverage']:.0%}"
    return [*lines, _line("AURC", f"{curve['aurc']:.3f}", sure)]


def _registered(report: Report, room: int) -> list[str]:
    """A line for each registered metric, as many as fit."""
    rows = metric_rows(report.get("metrics", {}), (report.get("base") or {}).get("metrics", {}))
    lines = [_line(name, value, f"bare base {base}" if base else "") for name, value, base in rows]
    return lines[: max(0, room)]


def _line(name: str, value: str, detail: str) -> str:
    return cut(f"{printable_line(name):<28}{value:>9}   {detail}".rstrip())


def cut(line: str) -> str:
    """`line` without control characters, and no wider than the table."""
    line = printable_line(line)
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 3]}..."
