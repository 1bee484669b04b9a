"""What retrieved contexts changed, as a part of the page, lines of the terminal, and a warning."""

from medqlora.evaluation.report.markup import Markup, element, joined, table
from medqlora.evaluation.report.wording import p_value, percent, points, span
from medqlora.evaluation.report_data import Report
from medqlora.evaluation.retrieval_data import FoundGroup, RetrievalBlock

_NAMES = {
    "question_alone": "question alone",
    "gold_context": "the question's own contexts",
    "retrieved_context": "retrieved contexts",
}
#: for a line of the terminal
SHORT_LEAK = "WARNING: the questions' own articles were not excluded (exclude_source: false)"
_SHORT = {"question_alone": "question alone", "gold_context": "own contexts"}
LEAK = (
    "The questions' own articles were not excluded from retrieval (exclude_source: false): the passages may hold the "
    "very abstract that a question was made from, with its conclusion. This accuracy says nothing of new questions."
)


def retrieval_section(report: Report) -> Markup | None:
    """The tables; None where nothing was retrieved."""
    block = report.get("retrieval")
    if not block:
        return None
    rows = []
    for name, scores in block["conditions"].items():
        difference = block["differences"].get(name)
        change = (
            (points(difference["difference"]), p_value(difference["mcnemar_p"])) if difference else ("", "")
        )
        interval = span(scores["accuracy_ci95"])
        rows.append(
            (_NAMES[name], percent(scores["accuracy"]), interval, f"{scores['macro_f1']:.3f}", *change)
        )
    head = ("contexts", "accuracy", "", "macro-F1", "retrieved against it", "p")
    parts: list[object] = [table(head, rows), _recall(block)]
    groups = {
        "own article among the passages found": block["by_found"]["found"],
        "own article not found": block["by_found"]["not_found"],
    }
    if unknown := block["no_evidence"]:
        shown = f"{unknown['threshold']:.2f}"
        groups[f"no evidence: passages hold less than {shown} of the question"] = unknown["below"]
        groups[f"passages hold {shown} of the question or more"] = unknown["above"]
    parts.append(table(("questions", "n", "accuracy", ""), [_row(name, one) for name, one in groups.items()]))
    return joined(parts)


def retrieval_lines(report: Report) -> list[str]:
    """Lines for the terminal; none where nothing was retrieved."""
    block = report.get("retrieval")
    if not block:
        return []
    lines = []
    for name, difference in block["differences"].items():
        change = (
            f"{points(difference['difference'])} points with retrieval, p {p_value(difference['mcnemar_p'])}"
        )
        accuracy = percent(block["conditions"][name]["accuracy"])
        lines.append(
            f"{'  ' + _NAMES[name].replace('the question' + chr(39) + 's own', 'own'):<28}{accuracy:>9}   {change}"
        )
    left_out = (
        f"{block['excluded_passages']:,} own passages left out" if block["exclude_source"] else "not left out"
    )
    lines.append(f"  {'own article found':<26}{percent(block['gold_recall']):>9}   {left_out}")
    return lines


def leak_alarm(report: Report) -> Markup:
    """The same warning in full and in red; empty where there is none."""
    return joined(element("p", f"WARNING: {LEAK}", class_="alarm") for _ in leak_warning(report))


def leak_warning(report: Report) -> list[str]:
    """The warning of a report whose retrieval may find the questions' own articles."""
    block = report.get("retrieval")
    return [SHORT_LEAK] if block and not block["exclude_source"] else []


def _recall(block: RetrievalBlock) -> Markup:
    recall, interval = percent(block["gold_recall"]), span(block["gold_recall_ci95"])
    line = (
        f"The question's own article was among the best passages for {recall} of the questions ({interval})"
    )
    line += (
        f"; it and its copies, {block['excluded_passages']:,} passages, were left out."
        if block["exclude_source"]
        else "."
    )
    return element("p", line)


def _row(name: str, group: FoundGroup) -> tuple[object, ...]:
    if group["accuracy"] is None or group["accuracy_ci95"] is None:
        return name, group["n"], "-", ""
    return name, group["n"], percent(group["accuracy"]), span(group["accuracy_ci95"])
