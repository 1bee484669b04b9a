"""The rationale of a generated text: the part after its decision."""

import re
from collections.abc import Mapping, Sequence

from medqlora.evaluation.parsing import phrases
from medqlora.evaluation.parsing.text import after_reasoning
from medqlora.evaluation.parsing.values import Value, Values, values_for

_START = re.compile(r"[\s*_#>\"'`]{0,12}(?:(?:the|my)\s)?", re.IGNORECASE)
#: the end of the decision: its stop and closing emphasis
_BEHIND = re.compile(r"[*_\"'`)\]}]{0,6}\s{0,3}[.,:;!–—-]{0,3}[*_\"'`)\]}]{0,6}(?:\s+|$)")


def rationale_in(text: str, labels: Sequence[str], options: Mapping[str, str] | None = None) -> str:
    """The text after the decision that it begins with ("**Answer:** no. The …" → "The …"), or else all of it.

    Decisions are parsed as by `evaluation.parse_decision`, so the "No" of "No difference was found" stays. Finished
    reasoning (`</think>`, a channel before the final one) and everything after an end token is removed; the rest is
    unchanged. Takes time linear in the length of `text`.

    Args:
        text: the generated text, without the prompt.
        labels: the possible decisions; empty for a free answer.
        options: for multiple choice, label → text of the option; a leading "B. Aspirin." is removed as a whole.
    """
    return split_decision(text, labels, options)[1]


def split_decision(
    text: str, labels: Sequence[str], options: Mapping[str, str] | None = None
) -> tuple[str | None, str]:
    """The decision that a text begins with (None where it begins with none), and the text after it.

    Args:
        text, labels, options: as in `rationale_in`.
    """
    text = after_reasoning(text)
    if turn := phrases.TURN_START.match(text):
        text = text[turn.end() :]
    end = phrases.END_TOKEN.search(text)
    if end:
        text = text[: end.start()]
    label = None
    if labels:
        value = _leading(text, values_for(tuple(labels), tuple((options or {}).items())))
        if value is not None and value.label is not None:
            label = value.label
            behind = _BEHIND.match(text, value.end)
            text = text[behind.end() if behind else value.end :]
    return label, text.strip()


def in_reasoning(text: str) -> bool:
    """Whether a text that is still generated is inside its reasoning (`<think>` without its end)."""
    return phrases.THOUGHT_START.search(after_reasoning(text)) is not None


def _leading(text: str, values: Values) -> Value | None:
    """The decision at the start of `text`, with or without "the answer is" before it."""
    start = _START.match(text)
    noun = phrases.NOUN.match(text, start.end()) if start else None
    if noun is not None:
        after = phrases.AFTER_NOUN.match(text, noun.end())
        # a LINK of words may need the space that AFTER_NOUN has consumed
        for position in (after.end() if after else noun.end(), noun.end()):
            link = phrases.LINK.match(text, position)
            if link is not None:
                return values.read(text, link.end())
    lead = phrases.LEAD.match(text)
    return values.read(text, lead.end()) if lead else None
