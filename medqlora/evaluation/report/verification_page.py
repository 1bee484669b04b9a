"""`merge_report.html`, `export_report.html`: an exported model against the live one, in the style of `report.html`."""

from collections.abc import Mapping, Sequence

from medqlora.evaluation.report.markup import Markup, element, fields, joined
from medqlora.evaluation.report.page import page, section
from medqlora.evaluation.report.verification_tables import nats, verdict_of, verification_contents
from medqlora.evaluation.verification import MARGIN, Verification

_DEFINITIONS = {
    "live": "the quantized base model with the adapter, as it was trained.",
    "difference": "log p(label) of the exported model minus that of the live model, in nats; the tables take its "
    "magnitude.",
    "KL": "Kullback-Leibler divergence of the exported model's label distribution from the live model's, mean over "
    "questions, in nats.",
    "margin": "difference of a model's two largest label probabilities.",
    "intervals": "95%: Wilson for accuracies, Newcombe's for the paired difference; p is McNemar's exact test.",
}


def render_verification(
    title: str,
    verification: Verification | None,
    not_verified: Sequence[str],
    facts: Mapping[str, object],
) -> str:
    """The page.

    Args:
        title: what was exported, in a few words.
        verification: the comparison; None where there was none.
        not_verified: what was not compared or not run, a sentence each.
        facts: what was exported from what, as plain values.
    """
    compared = {} if verification is None else verification_contents(verification)
    unverified = (
        element("ul", *(element("li", sentence) for sentence in not_verified)) if not_verified else None
    )
    return page(
        title=f"{title}: {verdict_of(verification)}",
        subtitle=_subtitle(verification),
        headline=_headline(verification),
        cautions=_cautions(verification),
        sections=joined(
            (
                *(part for heading, content in compared.items() for part in section(heading, content)),
                *section("Not verified", unverified),
                *section("What was exported", fields(facts)),
                *section("What the numbers mean", fields(_DEFINITIONS)),
            )
        ),
    )


def _subtitle(verification: Verification | None) -> str:
    if verification is None:
        return "not compared with the live model"
    return f"{verification.n} questions, the exported model against the live one"


def _headline(verification: Verification | None) -> Markup:
    if verification is None:
        return element("p", element("b", "Not verified"), class_="headline")
    count = len(verification.changed)
    return element(
        "p",
        element("b", count),
        f" of {verification.n} decisions changed; a label's log-probability differs by "
        f"{nats(verification.mean_difference)} nats in the mean, {nats(verification.largest_difference)} at most",
        class_="headline",
    )


def _cautions(verification: Verification | None) -> list[str]:
    if verification is None:
        return ["Not verified: nobody knows whether its answers are the adapter's. Compare it before use."]
    if verification.faults:
        return [f"It differs from the live model: {fault}." for fault in verification.faults]
    own = verification.limits.margin > MARGIN
    return [
        *(["Its limits are a user's own (--tolerance), and wider than the default."] if own else []),
        f"Accepted on these {verification.n} questions. The live model's own errors are the exported model's too.",
    ]
