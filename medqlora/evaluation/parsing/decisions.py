"""The decision that a generated text states, or None; never a guess.

Models answer in many ways: `Yes, …`, `**Answer:** no`, `The answer is maybe.`, `{"answer": "B"}`, `(B)`, `\\boxed{C}`,
or after pages of reasoning. Each possible decision in the text becomes a `Candidate` with a strength.
`parse_decision` returns a label only where the candidates agree, or where the text marks one as its conclusion. A
misread output biases a medical accuracy silently; an unparsed output counts as wrong, and its rate is reported.
"""

from collections.abc import Mapping, Sequence

from medqlora.evaluation.parsing import phrases
from medqlora.evaluation.parsing.candidates import candidates
from medqlora.evaluation.parsing.lists import own_part
from medqlora.evaluation.parsing.text import answers, plain, spoken
from medqlora.evaluation.parsing.values import (
    ANNOUNCED,
    FINAL,
    IMPLIED,
    LISTED,
    STATED,
    Candidate,
    Values,
    values_for,
)


def parse_decision(text: str, labels: Sequence[str], options: Mapping[str, str] | None = None) -> str | None:
    """The decision that `text` states; None where it states none or more than one.

    In order of strength: a final answer ("final answer", a JSON key, `<answer>`, `\\boxed`, `####`); an announced one
    ("the answer is", "Answer:", "(B) is correct", "I would say"); a stated one (first or last in the text, or after
    "therefore"); an implied one ("the most appropriate treatment is"). Reasoning in `<think>` is skipped; reasoning
    that never ends gives None. A weaker candidate that disagrees gives None, unless the text marks the stronger one as
    its conclusion. "yes or no", conditions, questions and other people's opinions decide nothing. Neither does a text
    that stops inside its list of the options, an answer that is none of the options, an option's text with another
    option's letter, or the answer to a further question that the model invents.

    Args:
        text: the generated text, without the prompt.
        labels: the possible decisions: words ("yes", "no", "maybe") or letters ("A" to "J").
        options: for multiple choice, label → text of the option, which counts as its label.

    Returns:
        One of `labels`, in their own spelling, or None. Takes time linear in the length of `text`.
    """
    if not labels or not text or text.isspace():
        return None
    values = values_for(tuple(labels), tuple((options or {}).items()))
    for part in answers(own_part(spoken(plain(text)), values)):
        if not part.strip():
            continue
        ordered = sorted(candidates(part, values), key=_order)
        chosen = _resolve(part, ordered)
        if chosen is not None:
            said_last = max(candidate.at for candidate in ordered if candidate.label == chosen.label)
            doubted = phrases.DOUBTED.search(part, said_last + 1) is not None
            return None if doubted or _taken_back(part, chosen, values) else chosen.label
    return None


def _order(candidate: Candidate) -> tuple[int, bool, str, int, bool]:
    """Sort key: position in the text; at one position, several labels together (None) come first."""
    at, label, strength, revises = candidate
    return at, label is not None, label or "", strength, revises


def _resolve(text: str, candidates: Sequence[Candidate]) -> Candidate | None:
    """The candidate that `candidates`, in the order of `text`, agree on; None where they don't."""
    top = max((candidate.strength for candidate in candidates), default=LISTED)
    if top == LISTED:
        return None
    strongest = [candidate for candidate in candidates if candidate.strength == top]
    chosen = strongest[-1]
    if chosen.label is None:
        return None
    said = {candidate.label for candidate in strongest if candidate.label is not None}
    if len(said) > 1:
        differing = [candidate for candidate in strongest if candidate.label not in (None, chosen.label)]
        between = text[max(differing[-1].at, chosen.at - 2_000) : chosen.at]
        if phrases.DOUBTED.search(between) is None and not (
            chosen.revises and _revised_between(text, differing[-1].at, chosen.at)
        ):
            return None
    if top == STATED and not chosen.revises and len(strongest) > 1 and strongest[0].label is None:
        return None
    first = min(candidate.at for candidate in strongest if candidate.label == chosen.label)
    for other in candidates:
        if other.label in (None, chosen.label) or other.strength == top:
            continue
        if other.strength == LISTED:
            if top == STATED or (top == IMPLIED and other.at > chosen.at):
                return None
        elif other.strength == IMPLIED and top >= ANNOUNCED:
            if other.at > chosen.at:
                return None
        elif other.at > chosen.at or (other.at < first and top != FINAL and not chosen.revises):
            return None
    return chosen


def _revised_between(text: str, earlier: int, later: int) -> bool:
    """Whether the text between two different decisions, or the start of the later sentence, revises the earlier one."""
    between = text[max(earlier, later - 400) : later]
    stop = phrases.SENTENCE_END.search(between)
    return phrases.REVISES.search(between, stop.start() if stop else 0) is not None


def _taken_back(text: str, chosen: Candidate, values: Values) -> bool:
    """Whether `text` also calls a second option correct, or the chosen one wrong."""
    if not values.letters:
        return False
    if phrases.DENIED.match(text, chosen.at):
        return True
    for pattern in (phrases.BOTH, phrases.ARE_CORRECT):
        for match in pattern.finditer(text):
            pair = {values.by_key.get(match[name].casefold()) for name in ("one", "two")} - {None}
            if chosen.label not in pair or len(pair) == 1:
                continue
            if match.start() > chosen.at or (pattern is phrases.ARE_CORRECT and not chosen.revises):
                return True
    for match in phrases.IS_WRONG.finditer(text, chosen.at):
        if values.by_key.get(match["letter"].casefold()) == chosen.label:
            return True
    return False
