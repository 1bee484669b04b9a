"""Reads a label at one position of a text, or finds that the word there is not meant as a label.

`no` is mostly a determiner ("no difference"), `maybe` an adverb ("maybe it helps"), `A` an article and `C.` half of
"C. difficile". The words that follow show whether a word is a decision, so all rules here look to the right, through
a bounded window: reading is linear in the length of the text.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from medqlora.evaluation.parsing import following, languages, phrases
from medqlora.evaluation.parsing.options import OptionMatch, OptionTexts
from medqlora.evaluation.parsing.text import plain, rest_of_line

#: characters to the right of a label that the rules read
WINDOW = 120
#: a pattern that matches nothing
_NEVER = "(?!)"


class Value(NamedTuple):
    """A label at some position.

    Attributes:
        label: one of the labels; None where several stand side by side ("yes or no"), or where a letter contradicts the
            option's text after it.
        end: the index after it.
    """

    label: str | None
    end: int


#: strengths of candidates: a list item; "the most appropriate treatment is", which may be a step of the reasoning; a
#: decision at the start, at the end or after "therefore"; "the answer is"; "final answer", JSON, tags and \boxed
LISTED, IMPLIED, STATED, ANNOUNCED, FINAL = range(5)


class Candidate(NamedTuple):
    """A position that may state the decision.

    Attributes:
        at: its index in the text.
        label: the label there; None for several labels together, or for none of the possible ones.
        strength: LISTED, IMPLIED, STATED, ANNOUNCED or FINAL.
        revises: whether its sentence is a conclusion or a correction ("so", "however", "wait").
    """

    at: int
    label: str | None
    strength: int
    revises: bool = False


class Values:
    """The labels of one question, prepared for reading.

    Args:
        labels: the possible decisions.
        options: label → text of the option; may be empty.
    """

    def __init__(self, labels: Sequence[str], options: Mapping[str, str]) -> None:
        self.by_key = {_key(plain(label)): label for label in labels}
        self.texts = OptionTexts({label: plain(text) for label, text in options.items()})
        self.letters = bool(labels) and all(len(label) <= 1 for label in labels)
        words = sorted(map(plain, labels), key=len, reverse=True)
        any_label = (
            "|".join(r"\s{1,40}".join(map(re.escape, word.split())) for word in words if word.split())
            or _NEVER
        )
        #: a label anywhere; group 1 is the label
        self.word = re.compile(rf"(?<![\w-])({any_label}){following.BOUNDARY}", re.IGNORECASE)
        #: a later sentence that begins with a label and a stop or comma; group 1 is the label
        self.sentence = re.compile(
            r"(?<=[.!;\n])\s(?:(?:but|actually|wait|or|also|well|then|again|and|doch|aber|oder),?\s){0,3}"
            rf"({any_label})"
            r"(?=[.!,;]|\s{0,3}\Z|\n)",
            re.IGNORECASE,
        )
        letters = "|".join(re.escape(word) for word in words if len(word) == 1) or _NEVER
        #: another option with a heading: "B.", "(B)", "B)"; group 1 is the letter
        mark = r"[*_]{0,3}(?:[).:\]]|\s{0,2}[–—=]|\s-(?=\s|\Z))"
        self.heading = re.compile(rf"{following.HEADING}({letters}){mark}")
        self._mention = re.compile(rf"(?<![\w'-])[(\[]?({letters})(?![\w'])[)\]]?")
        adverb = r"(?:\s?(?:possibly|maybe|perhaps|also|even|alternatively|likely|less\slikely|then|either|both),?)?"
        self._joined_heading = re.compile(
            rf"(?:\b(?:or|and|plus)|{languages.JOINING}|[,;/&|]|\bas\swell\sas|\bvs\b\.?){adverb}\s?"
            rf"{following.HEADING}({letters}){mark}(?!\w)"
            r"(?!\)?[\s*]{1,3}(?:is|was|would|has|does|cannot|can|are)\b)"
        )
        at_end = r"(?=\s*(?:[.,;:!)\]*\"'/|}_`]|$|or\b|and\b|depending\b|only\b|[都均皆])|[ ]{1,3}\(?[A-J\d][).:][ ])"
        self._beside = re.compile(
            rf"(?:{following.CLOSE}{following.BESIDE}{following.FEW_MARKS}|{following.ENUMERATED_BESIDE})"
            rf"({any_label}){following.BOUNDARY}{at_end}",
            re.IGNORECASE,
        )

        group = r"(?:for|in|among|at|with)\s(?!vivo|vitro|situ|vain|place)"
        #: "yes in adults, but no in children"; group 1 is the second label
        self._split = re.compile(
            rf"\s{group}[^.\n]{{1,60}}?(?:,|;|\band|\bbut)(?:\s(?:and|but))?\s({any_label})\s{group}",
            re.IGNORECASE,
        )

    def read(self, text: str, at: int) -> Value | None:
        """The label at `at`, after any decoration; None where there is none, or where it is not meant as one."""
        decoration = following.DECORATION.match(text, at)
        start = decoration.end() if decoration else at
        if start > at and text[start : start + 1].isdigit():
            compared = following.COMPARED.search(
                text, max(at, start - 3), start
            )  # the option "< 5 mmHg", not "5 mmHg"
            start = compared.start() if compared else start
        standing = self.texts.at(text, start)
        match = self.word.match(text, start)
        label = self.by_key.get(_key(match.group(1))) if match else None
        if match is None or label is None:
            dashed = self._dashed(text, start)
            if dashed is not None or standing is not None:
                return dashed or self._judged_option(text, standing)
            numbered = None if self.letters else following.ENUMERATED.match(text, start)
            match = self.word.match(text, numbered.end()) if numbered else None
            label = self.by_key.get(_key(match.group(1))) if match else None
            if match is None or label is None or len(label) == 1:
                return None
            return self._judged(text, match.start(1), match.end(), label)
        if standing is not None and standing.end > match.end():
            # the letter may be a heading of its own text, or the first word of an option's text
            headed = self._judged(text, match.start(1), match.end(), label) if len(label) == 1 else None
            option = self._judged_option(text, standing)
            if headed is not None and headed.label is not None and headed.end > standing.end:
                return headed
            return option if option is not None else headed
        named = (
            following.NAMED.search(text, at, start) is not None
        )  # "option 4", where "4" is what option 2 says
        if standing is not None and standing.end == match.end() and not named:
            judged = self._judged(text, match.start(1), match.end(), label)
            if judged is not None and judged.label is not None and judged.end > match.end():
                return judged  # "B. A", where that is what option B says
            option = self._judged_option(text, standing)
            if option is not None:
                return option if option.label == label else Value(None, match.end())
        return self._judged(text, match.start(1), match.end(), label)

    def _dashed(self, text: str, at: int) -> Value | None:
        """A letter joined to its own option's text by a hyphen: "D-Medial pterygoid"."""
        label = self.by_key.get(text[at : at + 1].casefold()) if text[at + 1 : at + 2] == "-" else None
        behind = self.texts.at(text, at + 2) if label is not None else None
        if label is None or behind is None:
            return None
        return Value(label if label in behind.labels else None, behind.end)

    def _judged(self, text: str, start: int, end: int, label: str) -> Value | None:
        """The label from `start` to `end`, judged by what follows it."""
        tail = text[end : end + WINDOW]
        if following.ASKED.match(tail):
            return None
        beside = self._beside.match(tail)
        second = beside.group(1) if beside else label
        if beside and _key(second) != _key(label) and self._same_case(text, start, second):
            own = self._own_text(text, end, label) if len(label) == 1 else None
            if own is None:
                return Value(None, end + beside.end())
        if following.CONDITIONAL.match(tail) or following.CUT.match(tail):
            return None
        other = self._split.match(tail) if len(label) > 1 else None
        if other and _key(other.group(1)) != _key(label):
            return Value(None, end + other.end())
        if len(label) > 1:
            return Value(label, end) if following.follows(label).match(tail) else None
        return self._judged_letter(text, start, end, label)

    def behind(self, text: str, end: int) -> OptionMatch | None:
        """The option's text after a letter that ends at `end`; a hyphen may be a sign."""
        if not self.texts:
            return None
        separators = following.SEPARATORS.match(text, end)
        place = separators.end() if separators else end
        signed = self.texts.at(text, place - 1) if place > end and text[place - 1] == "-" else None
        return signed or self.texts.at(text, place)

    def _own_text(self, text: str, end: int, label: str) -> OptionMatch | None:
        option = self.behind(text, end)
        return option if option is not None and label in option.labels else None

    def _judged_letter(self, text: str, start: int, end: int, label: str) -> Value | None:
        """A one-character label, where the text of an option may follow."""
        behind = self.behind(text, end)
        if behind is not None and label in behind.labels:
            line = rest_of_line(text, behind.end)
            listed = following.HEADS.match(text, end) is not None and self._next_in_line(line, label)
            return Value(None if listed or self._another(text, behind.end, label) else label, behind.end)
        if behind is not None:
            after = text[behind.end : behind.end + WINDOW]
            # "C. diaphragm, pleura …" rewords option C, even where A is "diaphragm"
            reworded = re.match(r",|\sand\b", after) and self.texts.begins_with(label, behind.labels[0])
            if following.OPTION_FOLLOWS.match(after) and not self._goes_on(text, behind) and not reworded:
                return Value(None, behind.end)
        tail = text[end : end + WINDOW]
        if languages.REJECTED.match(tail):
            return None
        written = text[start:end]
        if written != written.upper():
            before = text[max(0, start - 24) : start]
            enclosed = before[-1:] in tuple("([{\"'*`") or not before.strip()
            announced = before.rstrip(" \t*_\"'`(")[-1:] in tuple(":=")
            closed = re.match(r"[)\].:,\"'*}$<]", tail) is not None
            if not (
                closed
                or ((not tail.strip() or tail[:1] == "\n") and (enclosed or announced or written not in "ai"))
            ):
                return None
        to = following.RANGE.match(tail)
        if to is not None and _key(to["to"]) in self.by_key:
            return Value(None, end + to.end())
        if following.SPECIES.match(tail) or (re.match(r"\.\w", tail) and not re.match(r"\.[A-Z][a-z]", tail)):
            return None
        if not following.LETTER_FOLLOWS.match(tail):
            return None
        if self._headed_another(text, end, label):
            return Value(None, end)
        return Value(label, end)

    def _headed_another(self, text: str, end: int, label: str) -> bool:
        """Whether the line continues "… or B. …", after a letter that is a heading too."""
        if not following.HEADS.match(text, end):
            return False
        line = rest_of_line(text, end)
        return self._next_in_line(line, label) or any(
            self.by_key.get(_key(match[1])) != label and not following.OTHERS.search(line[: match.start()])
            for match in self._joined_heading.finditer(line)
        )

    def _next_in_line(self, line: str, label: str) -> bool:
        """Whether a later sentence of the line begins with the next label's heading: a list within one line."""
        order = list(self.by_key.values())
        place = order.index(label) + 1
        for match in following.LINE_HEADING.finditer(line) if place < len(order) else ():
            if self.by_key.get(_key(match[1])) == order[place]:
                before = line[: match.start()]
                if before[-1:].isalnum() and following.CONTRAST.search(before):
                    return False
                return not phrases.REJECTED.search(line[match.end() : match.end() + 80])
        return False

    def _another(self, text: str, end: int, label: str) -> bool:
        """Whether the line names a second option beside the one that ends at `end`."""
        line = rest_of_line(text, end, 240)
        if any(self.by_key.get(_key(match[1])) != label for match in self._joined_heading.finditer(line)):
            return True
        for match in self._mention.finditer(line):
            other = self.by_key.get(_key(match[1]))
            if other in (None, label):
                continue
            if following.CONTRAST.search(line[: match.start()]):
                break
            own = self._own_text(text, end + match.end(1), other or "")
            if (
                own is not None
                and following.SUBJECT.match(text, own.end)
                and re.search(r"[.!]\s", line[: match.start()])
            ):
                continue
            if (
                own is not None
                and not self._goes_on(text, own)
                and following.OPTION_FOLLOWS.match(text, own.end)
            ):
                return True
            if (
                own is None
                and following.IN_BRACKETS.match(line, match.start())
                and following.OPTION_FOLLOWS.match(line, match.end())
            ):
                return True
        joined = following.JOINED.match(text, end)
        if joined is None:
            return False
        marks = following.MARKS.match(text, joined.end())
        place = marks.end() if marks else joined.end()
        second = self.texts.at(text, place)
        if second is not None and label not in second.labels:
            # "C. Lateral pterygoid; the medial pterygoid elevates" is about one answer
            return ";" not in joined[0] or following.OPTION_FOLLOWS.match(text, second.end) is not None
        word = self.word.match(text, place)
        other = self.by_key.get(_key(word[1])) if word else None
        return (
            word is not None
            and other not in (None, label)
            and (len(word[1]) > 1 or word[1].isupper())
            and re.match(r"[)\]*_]{0,4}(?:\s*$|[.,;:)\n])", text[word.end() : word.end() + 8]) is not None
        )

    def _goes_on(self, text: str, option: OptionMatch) -> bool:
        """Whether the option's text is only part of something else: "metformin and iron"."""
        part = following.PART.match(text, option.end)
        if part is None and option.longer:
            part = following.COMMA.match(text, option.end)
        return part is not None and following.CLAUSE.match(text[part.end() : part.end() + 40]) is None

    def letter_behind(self, text: str, at: int) -> str | None:
        """The label whose letter stands at `at` in brackets or after "option"."""
        letter = following.LETTER_BEHIND.match(text, at) if self.letters else None
        return (
            self.by_key.get(_key(letter["inside"] or letter["named"] or letter["dashed"])) if letter else None
        )

    def _judged_option(self, text: str, option: OptionMatch | None) -> Value | None:
        """The option whose text was found, judged by the text that follows it."""
        if option is None:
            return None
        tail = text[option.end : option.end + WINDOW]
        if following.ASKED.match(tail) or following.CONDITIONAL.match(tail) or following.CUT.match(tail):
            return None
        labels, end = option.labels, option.end
        letter = following.LETTER_BEHIND.match(tail) if self.letters else None
        if letter is not None:
            named = letter["inside"] or letter["named"] or letter["dashed"]
            label = self.by_key.get(_key(named))
            if label is None and not (named.isalpha() and named in "ABCDEFGHIJ"):
                letter = None
            elif label not in labels:
                return Value(None, end + letter.end())
            else:
                labels, end = (label,) if label is not None else (), end + letter.end()
                tail = text[end : end + WINDOW]
        if len(labels) > 1:
            return Value(None, end) if following.OPTION_FOLLOWS.match(tail) else None
        if self._another(text, end, labels[0]):
            return Value(None, end)
        if letter is None and (not following.OPTION_FOLLOWS.match(tail) or self._goes_on(text, option)):
            return None
        return Value(labels[0], end)

    def _same_case(self, text: str, start: int, other: str) -> bool:
        """Whether a one-letter neighbour is written as a label ("A, B"), not as an article ("A, a …")."""
        return len(other) > 1 or text[start].isupper() == other.isupper()


@lru_cache(maxsize=256)
def values_for(labels: tuple[str, ...], options: tuple[tuple[str, str], ...]) -> Values:
    """The `Values` of a question's labels, cached."""
    return Values(labels, dict(options))


def _key(text: str) -> str:
    """A label's or option's text in its compared form."""
    return " ".join(text.split()).casefold().rstrip(".")
