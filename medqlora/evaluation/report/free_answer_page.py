"""The parts of `report.html` for free answers: overlap of wording, and the answers side by side."""

import random
from collections.abc import Sequence

from medqlora.evaluation.metrics.free_answer import answer_scores
from medqlora.evaluation.report.markup import (
    Markup,
    element,
    joined,
    table,
)
from medqlora.evaluation.report.page_tables import interval_text
from medqlora.evaluation.report.wording import percent, points, span
from medqlora.evaluation.report_data import Report, TextScores
from medqlora.records import Prediction, Record

#: answers in each group: the lowest scores, the highest, and a random choice
ANSWERS_SHOWN = 20
#: a text of more characters is folded
_SHORT = 400


def free_headline(report: Report) -> Markup:
    """Token F1 with its interval, then the difference from the base model."""
    parts: list[object] = [
        element("b", percent(report["token_f1"])),
        f" token F1, {span(report['token_f1_ci95'])}",
    ]
    parts.append(f"; ROUGE-L {report['rouge_l']:.3f}; exact match {percent(report['exact_match'])}")
    if base := report["base"]:
        parts.append(f"; {points(base['token_f1_difference'])} points of token F1 against the bare base")
    return element("p", *parts, class_="headline")


def overlap_table(report: Report) -> Markup:
    """Token F1, ROUGE-L and exact match of this model and the base model."""
    rows = [_overlap_row("This model", report)]
    base = report["base"]
    if base:
        rows.append(_overlap_row("Bare base", base))
    head = ["", "token F1", "95% interval", "ROUGE-L", "95% interval", "exact match", "95% interval"]
    parts = [table(head, rows)]
    if base:
        words = (
            f"Difference of token F1: {points(base['token_f1_difference'])} points "
            f"({span(base['token_f1_difference_ci95'], signed=True)})."
        )
        parts.append(element("p", words))
    return joined(parts)


def _overlap_row(name: str, scores: TextScores) -> list[object]:
    return [
        name,
        percent(scores["token_f1"]),
        interval_text(scores["token_f1_ci95"]),
        f"{scores['rouge_l']:.3f}",
        " to ".join(f"{end:.3f}" for end in scores["rouge_l_ci95"]),
        percent(scores["accuracy"]),
        interval_text(scores["accuracy_ci95"]),
    ]


def answers_side_by_side(
    predictions: Sequence[Prediction],
    records: Sequence[Record],
    base: Sequence[Prediction] | None,
    seed: int,
) -> Markup:
    """Question, reference and generated answer of some questions, or of all where they are few.

    Args:
        predictions: one a question.
        records: the questions.
        base: the base model's predictions.
        seed: of the random choice of answers.
    """
    by_id = {record.id: record for record in records}
    base_predictions = {one.id: one for one in base or ()}
    # equal scores in the order of the ids, so that the same scores give the same page
    ranked = sorted(predictions, key=lambda one: (answer_scores(one)["token_f1"], one.id))
    if len(ranked) <= 3 * ANSWERS_SHOWN:
        groups = {f"All {len(ranked)} answers, the lowest token F1 first": ranked}
    else:
        middle = ranked[ANSWERS_SHOWN:-ANSWERS_SHOWN]
        drawn = random.Random(seed).sample(middle, ANSWERS_SHOWN)
        groups = {
            f"The {ANSWERS_SHOWN} answers of the lowest token F1": ranked[:ANSWERS_SHOWN],
            f"The {ANSWERS_SHOWN} answers of the highest token F1": ranked[: -ANSWERS_SHOWN - 1 : -1],
            f"{ANSWERS_SHOWN} of the other {len(middle)} answers, drawn at random": drawn,
        }
    note = "All answers stand in predictions.jsonl. A low score can be another wording: read before judging."
    parts: list[Markup] = [element("p", note, class_="soft")]
    for index, (title, chosen) in enumerate(groups.items()):
        shown = [_answer(one, by_id[one.id], base_predictions.get(one.id)) for one in chosen]
        opened = {"open": "open"} if index == 0 else {}
        parts.append(element("details", element("summary", title), *shown, **opened))
    return joined(parts)


def _answer(one: Prediction, record: Record, base: Prediction | None) -> Markup:
    scores = answer_scores(one)
    facts = f"token F1 {percent(scores['token_f1'])} · ROUGE-L {scores['rouge_l']:.3f} · id {one.id}"
    rows = [("Reference", str(one.gold)), ("Generated", one.text or "")]
    if base is not None:
        facts += f" · bare base: token F1 {percent(answer_scores(base)['token_f1'])}"
        rows.append(("Bare base", base.text or ""))
    return element(
        "article",
        _text("question", record.question),
        element("dl", *(part for name, answer in rows for part in _row(name, answer))),
        element("p", facts, class_="small"),
    )


def _row(name: str, answer: str) -> tuple[Markup, Markup]:
    return element("dt", name), element("dd", _text("", answer or "(nothing)"))


def _text(class_: str, content: str) -> Markup:
    """A paragraph; a long text shows its beginning and unfolds on a click."""
    attributes = {"class_": class_} if class_ else {}
    if len(content) <= _SHORT:
        return element("p", content, **attributes)
    beginning = element("summary", f"{content[:_SHORT]}…")
    return element("details", beginning, element("p", content), **attributes)
