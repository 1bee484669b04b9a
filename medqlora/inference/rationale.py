"""From what a model wrote to the part behind its decision."""

import re
from collections.abc import Mapping, Sequence

from medqlora.evaluation.parsing import phrases as phrases
from medqlora.evaluation.parsing.values import Value, Values, values_for

_START = re.compile(r"[\s*_#>\"'`]{0,12}(?:(?:the|my)\s)?", re.IGNORECASE)
#: what belongs to the decision: its stop, and the end of its emphasis
_BEHIND = re.compile(r"[*_\"'`)\]}]{0,6}\s{0,3}[.,:;!–—-]{0,3}[*_\"'`)\]}]{0,6}(?:\s+|$)")


def rationale_in(text: str, labels: Sequence[str], options: Mapping[str, str] | None = None) -> str:
    """`text` behind the decision that it begins with ("**Answer:** no. The …" → "The …"); else all of it.

    What is a decision is read as `evaluation.parse_decision` reads it: the "No" of "No difference was
    found" is none and stays. Thoughts that end (`</think>`, a
    channel before the final one) and what follows an end token are left out, all
    else stays as it was written. Takes time linear in the length of `text`.

    Args:
        text: what was generated, without the prompt.
        labels: the decisions that are possible; empty for a free answer.
        options: for multiple choice, label → text of the option; a leading "B. Aspirin." goes as one.
    """
    finals = list(phrases.FINAL_CHANNEL.finditer(text))
    if finals:
        text = text[finals[-1].end() :]
    thoughts = list(phrases.THOUGHT_END.finditer(text))
    if thoughts:
        text = text[thoughts[-1].end() :]
    if turn := phrases.TURN_START.match(text):
        text = text[turn.end() :]
    end = phrases.END_TOKEN.search(text)
    if end:
        text = text[: end.start()]
    if labels:
        value = _leading(text, values_for(tuple(labels), tuple((options or {}).items())))
        if value is not None and value.label is not None:
            behind = _BEHIND.match(text, value.end)
            text = text[behind.end() if behind else value.end :]
    return text.strip()


def _leading(text: str, values: Values) -> Value | None:
    """The decision with which `text` begins, with or without "the answer is" before it."""
    start = _START.match(text)
    noun = phrases.NOUN.match(text, start.end()) if start else None
    if noun is not None:
        after = phrases.AFTER_NOUN.match(text, noun.end())
        # the space that AFTER_NOUN took may be what a LINK of words begins behind
        for place in (after.end() if after else noun.end(), noun.end()):
            link = phrases.LINK.match(text, place)
            if link is not None:
                return values.read(text, link.end())
    lead = phrases.LEAD.match(text)
    return values.read(text, lead.end()) if lead else None
