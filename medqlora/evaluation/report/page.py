"""`report.html`: a self-contained page that loads nothing, and runs no script but that of its table of questions."""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from string import Template

from medqlora.evaluation.metrics.blocks import decision_of
from medqlora.evaluation.metrics.registry import registered_metrics
from medqlora.evaluation.metrics.scores import Scores, decided
from medqlora.evaluation.report.browse import policy, question_table, script
from medqlora.evaluation.report.context import Context
from medqlora.evaluation.report.free_answer_page import answers_side_by_side, free_headline, overlap_table
from medqlora.evaluation.report.lines import prediction_lines
from medqlora.evaluation.report.markup import Markup, element, fields, joined, picture, text
from medqlora.evaluation.report.page_tables import (
    calibration_table,
    class_table,
    comparison_table,
    group_table,
    metric_table,
)
from medqlora.evaluation.report.plots import figures, svg
from medqlora.evaluation.report.retrieval_page import leak_alarm, retrieval_section
from medqlora.evaluation.report.side_by_side_table import side_by_side_section
from medqlora.evaluation.report.thumbnails import Thumbnails
from medqlora.evaluation.report.training_plot import training_figures
from medqlora.evaluation.report.verification_tables import verification_contents
from medqlora.evaluation.report.wording import NOT_ADVICE, cautions, percent, points, set_name, span
from medqlora.evaluation.report_data import Report
from medqlora.evaluation.verification import Verification
from medqlora.records import Prediction, Record

#: errors in the page
ERRORS_SHOWN = 10

_CAPTIONS = {
    "reliability": "Mean confidence and accuracy of 15 bins of equal width. On the diagonal, a confidence of 80% "
    "means right four times in five.",
    "risk_coverage": "From left to right, less and less sure answers are let through.",
    "confidence": "Confidence is the share of the decision in the probability of all labels.",
    "confusion": "Rows are the right answers, columns the decisions; counts and shares of the row. What could "
    "not be read is in the last column.",
    "confusion_base": "The same questions and prompts with the adapter switched off.",
    "by_topic": "The most frequent groups; a question counts in each of its own. With so many groups some lie "
    "far from the mean by chance.",
    "by_context_length": "Number of questions in brackets; neighbours with few questions are merged.",
}
_WIDE = {"by_topic"}
_TRAINING = {
    "training_loss": "Each step's loss, its running mean, and the loss of the validation questions.",
    "validation_scores": "At each validation; the best checkpoint was chosen by them, so the test's scores count.",
}


def render(
    scores: Scores,
    predictions: Sequence[Prediction],
    records: Sequence[Record],
    base: Sequence[Prediction] | None,
    run_info: Mapping[str, object],
    context: Context = Context(),  # noqa: B008  # a NamedTuple does not change
    live: Verification | None = None,
) -> str:
    """The page.

    Args:
        scores: of these predictions.
        predictions: one a question, as the model scored them.
        records: the questions.
        base: the base model's predictions.
        run_info: what is needed to repeat the run, as plain values: `command`, `versions`, `prompt`, ….
        context: the header's facts and the training curves.
        live: of an exported model, the comparison with the live adapter.
    """
    name = set_name(scores.dataset, scores.split)
    repeat = section("To repeat this run", fields({**_identity(scores), **run_info}))
    return page(
        title=f"{name}: {headline_words(scores)}",
        subtitle=_subtitle(scores),
        headline=_headline(scores),
        cautions=cautions(scores.to_json()),
        sections=joined((*_sections(scores, predictions, records, base, live, context=context), *repeat)),
        context=context,
        scripted=True,
    )


def page(
    *,
    title: str,
    subtitle: str,
    headline: Markup,
    cautions: Sequence[str],
    sections: Markup,
    context: Context = Context(),  # noqa: B008  # a NamedTuple does not change
    scripted: bool = False,
) -> str:
    """The frame of every page around its `sections`; `scripted` lets the script of `question_table` run."""
    template = Template(files("medqlora.evaluation.report").joinpath("page.html").read_text("utf-8"))
    return template.substitute(
        title=text(title),
        subtitle=text(subtitle),
        headline=headline,
        cautions=joined((element("p", sentence) for sentence in cautions), ""),
        not_advice=text(NOT_ADVICE),
        facts=fields(context.facts, "facts") if context.facts else "",
        policy=Markup(f"; script-src {policy()}") if scripted else "",
        script=Markup(f"<script>{script()}</script>") if scripted else "",
        sections=sections,
    )


def set_report(
    scores: Scores,
    predictions: Sequence[Prediction],
    records: Sequence[Record],
    base: Sequence[Prediction] | None,
    live: Verification | None = None,
) -> Markup:
    """The content of `render` for one question set of several in a page."""
    return joined(
        (
            element("p", _subtitle(scores), class_="soft"),
            _headline(scores),
            element(
                "div", *(element("p", sentence) for sentence in cautions(scores.to_json())), class_="notice"
            ),
            *_sections(scores, predictions, records, base, live, "h3"),
            *section("What was asked", fields(_identity(scores)), "h3"),
        )
    )


def headline_words(scores: Scores) -> str:
    """The headline's figure with its name: accuracy, or token F1 of free answers."""
    if scores.decided_by == "exact_match":
        return f"{percent(scores.more['token_f1'])} token F1"
    return f"{percent(scores.accuracy)} accuracy"


def _subtitle(scores: Scores) -> str:
    by = {
        "likelihood": "the likeliest label",
        "generation": "the generated text",
        "exact_match": "the wording of its free answers",
    }
    how = "compared by" if scores.decided_by == "exact_match" else "decided by"
    adapter = f"adapter {scores.adapter}" if scores.adapter else "bare base, no adapter"
    return f"{scores.n} questions, {how} {by[scores.decided_by]}; {adapter}; seed {scores.seed}"


def _sections(
    scores: Scores,
    predictions: Sequence[Prediction],
    records: Sequence[Record],
    base: Sequence[Prediction] | None,
    live: Verification | None,
    heading: str = "h2",
    context: Context = Context(),  # noqa: B008  # a NamedTuple does not change
) -> list[Markup]:
    report = scores.to_json()
    by_id = {record.id: record for record in records}
    questions = question_table(scores, prediction_lines(scores, predictions, base, records), by_id)
    if scores.decided_by == "exact_match":
        contents: dict[str, Markup | None] = {
            "Against the baselines": overlap_table(report),
            "Training curves": training_curves(context),
            "Answers side by side": answers_side_by_side(predictions, records, base, scores.seed),
        }
    else:
        contents = {
            "Against the baselines": comparison_table(report),
            "Adapter by adapter": side_by_side_section(report),
            **_against_live(live, heading),
            "Retrieved contexts": retrieval_section(report),
            "By answer": class_table(report),
            "Training curves": training_curves(context),
            "Figures": _figures(scores, predictions),
            "Calibration and selective answering": calibration_table(report),
            "By length of the prompt": group_table(report["by_context_length"], "tokens"),
            f"By {report.get('topic_kind', 'topic')}": _topics(report),
            _errors_title(scores): _errors(scores, predictions, records, base),
        }
    contents[f"All {scores.n} questions"] = questions
    contents["Registered metrics"] = metric_table(report)
    contents["What the numbers mean"] = _definitions(report)
    return [part for title, content in contents.items() for part in section(title, content, heading)]


def _against_live(live: Verification | None, heading: str) -> dict[str, Markup | None]:
    """The section on the live adapter of an exported model's report; none without a comparison."""
    if live is None:
        return {}
    inner = "h3" if heading == "h2" else "h4"
    contents = verification_contents(live).items()
    parts = [part for title, content in contents for part in section(title, content, inner)]
    return {"Against the live adapter": joined(parts)}


def section(title: str, content: Markup | None, heading: str = "h2") -> list[Markup]:
    """A section under its heading; none without content."""
    return [] if not content else [element("section", element(heading, title), content)]


def folded(title: str, content: Markup) -> Markup:
    """A part of the page that unfolds on a click, without a script."""
    return element("details", element("summary", element("h2", title)), content, class_="set")


def _headline(scores: Scores) -> Markup:
    if scores.decided_by == "exact_match":
        return free_headline(scores.to_json())
    parts: list[object] = [element("b", percent(scores.accuracy)), f" accuracy, {span(scores.accuracy_ci95)}"]
    if scores.base:
        parts.append(f"; {points(scores.base['difference'])} points against the bare base")
    return joined((element("p", *parts, class_="headline"), leak_alarm(scores.to_json())))


def _figures(scores: Scores, predictions: Sequence[Prediction]) -> Markup | None:
    drawn = [
        picture(
            svg(figure), f"{name.replace('_', ' ')}. {_CAPTIONS[name]}", _CAPTIONS[name], wide=name in _WIDE
        )
        for name, figure in figures(scores, predictions).items()
    ]
    return element("div", *drawn, class_="figures") if drawn else None


def training_curves(context: Context) -> Markup | None:
    """The figures of the training curves; None where they are not known."""
    drawn = [
        picture(svg(figure), f"{name.replace('_', ' ')}. {_TRAINING[name]}", _TRAINING[name])
        for name, figure in training_figures(context.curves).items()
    ]
    return element("div", *drawn, class_="figures") if drawn else None


def _topics(report: Report) -> Markup | None:
    rows = report["by_topic"]
    if not rows:
        return None
    return element(
        "details",
        element("summary", f"All {len(rows)} groups"),
        group_table(rows, report.get("topic_kind", "topic")) or "",
    )


def _errors_title(scores: Scores) -> str:
    return "The most confident errors" if scores.decided_by == "likelihood" else "Errors"


def _errors(
    scores: Scores,
    predictions: Sequence[Prediction],
    records: Sequence[Record],
    base: Sequence[Prediction] | None,
) -> Markup | None:
    """The errors of the highest confidence (without label scores: the first), with their questions."""
    by_likelihood = scores.decided_by == "likelihood"
    more = scores.more
    compared = decided(predictions, more["normalisation"], more["prior"])
    compared_base = decided(base or [], more["normalisation"], more["base_prior"])
    base_decisions = {one.id: decision_of(one, by_likelihood) for one in compared_base}
    by_id = {record.id: record for record in records}
    wrong = [one for one in compared if decision_of(one, by_likelihood) != one.gold]
    wrong.sort(key=lambda one: (-(one.confidence or 0.0), one.id))
    if not wrong:
        return element("p", "There were none.")
    note = f"{min(ERRORS_SHOWN, len(wrong))} of {len(wrong)} wrong answers. "
    note += "The dataset's answer may itself be wrong: read before judging."
    shown = [_error(one, by_id[one.id], by_likelihood, base_decisions) for one in wrong[:ERRORS_SHOWN]]
    return joined([element("p", note, class_="soft"), *shown])


def _error(
    prediction: Prediction, record: Record, by_likelihood: bool, base_decisions: Mapping[str, str | None]
) -> Markup:
    decision = decision_of(prediction, by_likelihood)
    facts: list[object] = [
        "Right: ",
        element("b", prediction.gold),
        " · decided: ",
        element("b", decision or "unreadable"),
    ]
    if prediction.confidence is not None:
        facts.append(f" · confidence {percent(prediction.confidence)}")
    if prediction.id in base_decisions:
        facts.append(f" · bare base: {base_decisions[prediction.id] or 'unreadable'}")
    facts.append(f" · id {prediction.id}")
    labels = record.context_labels if len(record.context_labels) == len(record.contexts) else ()
    contexts = []
    for index, passage in enumerate(record.contexts):
        lead = [element("b", labels[index]), " "] if labels else []
        contexts.append(element("p", *lead, passage))
    options = [element("p", f"{label}. {option}") for label, option in record.options.items()]
    parts = [element("p", record.question, class_="question"), *options, element("p", *facts, class_="small")]
    if record.images:
        parts.insert(1, Thumbnails().markup(record))
    if prediction.text is not None:
        parts.append(element("p", "Generated: ", prediction.text or "(nothing)", class_="small"))
    if contexts:
        parts.append(element("details", element("summary", "Context"), *contexts))
    if record.long_answer:
        parts.append(
            element(
                "details",
                element("summary", "The dataset's own conclusion"),
                element("p", record.long_answer),
            )
        )
    return element("article", *parts)


def _definitions(report: Report) -> Markup:
    lines = {
        "accuracy": "share of all questions whose decision is the right one; what could not be read is wrong. "
        "Interval: Wilson, 95%.",
        "macro-F1": "mean F1 over all the labels of the task, each counting the same. Interval: percentile "
        "bootstrap over questions, 2,000 draws.",
        "difference": "accuracy minus the base's on the same questions. Interval: Newcombe's for paired "
        "proportions; p: exact McNemar test.",
        "ECE": "expected calibration error, 15 bins of equal width of the decision's confidence.",
        "Brier": "mean over questions of the sum over labels of (probability - truth) squared: 0 is best, 2 worst.",
        "NLL": "mean negative log of the right label's probability among the labels, in nats.",
        "AURC": "mean risk over all coverages, from the surest answer to all of them; lower is better. Ties are "
        "averaged.",
        "temperature": "fitted on validation questions only, never on these; 1 where those support none.",
        "ROUGE-L": "overlap of the generated rationale's wording with the reference; it does not judge truth.",
    }  # fmt: skip
    if report["decided_by"] == "exact_match":
        lines = {
            "token F1": "mean over questions of the F1 of the words that answer and reference share, in any order, "
            "without case, punctuation and articles (SQuAD). Interval: percentile bootstrap over questions, 2,000 "
            "draws.",
            "ROUGE-L": "mean over questions of the F1 of the longest common subsequence of words. Interval: as "
            "token F1.",
            "exact match": "share of answers with the same words as the reference; `accuracy` in "
            "test_report.json. Interval: Wilson, 95%.",
            "all three": "compare wording. Another wording of a right answer scores low, and an answer that differs "
            'by one "not" scores high.',
        }
    values = report.get("metrics", {})
    registered = {name: entry.help for name, entry in registered_metrics().items() if name in values}
    return fields({**lines, **registered})


def _identity(scores: Scores) -> dict[str, object]:
    return {
        "dataset": scores.dataset,
        "split": scores.split,
        "adapter": scores.adapter or "none",
        "seed": scores.seed,
        "prompt_sha256": scores.prompt_sha256,
        "normalisation": {"none": "as they are", "length": "per token"}.get(
            str(scores.more.get("normalisation"))
        ),
    }
