"""The data files of the screen: phrases, words and replies. Each is read when it is first needed."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import yaml

Patterns = tuple[re.Pattern[str], ...]
#: part of a phrase → its regular expression, or a list of alternatives
Fragments = Mapping[str, str | Sequence[str]]

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
#: "<kin>", "<4 words>", "<4 words but negation>"
_PLACEHOLDER = re.compile(r"<(?:(?P<most>\d+) words(?: but (?P<but>\w+))?|(?P<name>\w+))>")


@dataclass(frozen=True)
class Phrases:
    """The patterns of `phrases.yaml`, which describes each group.

    `emergency` are the emergencies of the user and of a person nearby, `emergency_of_others` those of "he" or "she".
    """

    self_harm: Patterns
    self_harm_request: Patterns
    poisoning: Patterns
    emergency: Patterns
    emergency_of_others: Patterns
    at_hand: re.Pattern[str]
    first_person: re.Pattern[str]
    over: re.Pattern[str]
    vignette: re.Pattern[str]


@dataclass(frozen=True)
class Words:
    """The tables of `words.yaml`.

    Attributes:
        vocabulary: words that typos are corrected to.
        no_typos: words that are never corrected.
        slang: misspelt word → meant word.
        one_less: a word of the vocabulary with one letter missing → the word.
        joined: pattern and replacement of words that belong together, or apart.
        lookalikes: for `str.translate`: letters that look like Latin ones.
        leet: digit or sign → letter, where `leet_position` matches.
    """

    vocabulary: frozenset[str]
    no_typos: frozenset[str]
    slang: Mapping[str, str]
    one_less: Mapping[str, str]
    joined: Sequence[tuple[re.Pattern[str], str]]
    lookalikes: Mapping[int, int]
    leet: Mapping[str, str]
    leet_position: re.Pattern[str]


@lru_cache(maxsize=1)
def phrases() -> Phrases:
    """The phrases, compiled."""
    table: Mapping[str, Mapping[str, Sequence[str]]] = yaml.load(_text("phrases"), Loader=_LOADER)
    fragments, groups = table["fragments"], table["phrases"]

    def compiled(group: str, who: str = "who") -> Patterns:
        templates = (phrase.replace("<who>", f"<{who}>") for phrase in groups[group])
        return tuple(re.compile(rf"\b(?:{_expanded(template, fragments)})\b") for template in templates)

    return Phrases(
        self_harm=compiled("self_harm"),
        self_harm_request=compiled("self_harm_request"),
        poisoning=compiled("poisoning"),
        emergency=compiled("emergency_of") + compiled("emergency"),
        emergency_of_others=compiled("emergency_of", who="other"),
        **{name: re.compile("|".join(choices)) for name, choices in table["alternatives"].items()},
    )


@lru_cache(maxsize=1)
def words() -> Words:
    """The words."""
    table = yaml.load(_text("words"), Loader=_LOADER)
    vocabulary = frozenset(table["vocabulary"])
    return Words(
        vocabulary=vocabulary,
        no_typos=frozenset(table["no_typos"]),
        slang=table["slang"],
        one_less={
            word[:index] + word[index + 1 :]: word
            for word in sorted(vocabulary)
            for index in range(len(word))
            if len(word) > 5
        },
        joined=[(re.compile(pattern), replacement) for pattern, replacement in table["joined"]],
        lookalikes=str.maketrans(table["lookalikes"]["letters"], table["lookalikes"]["latin"]),
        leet=table["leet"],
        leet_position=re.compile(table["leet_position"]),
    )


@lru_cache(maxsize=1)
def replies() -> Mapping[str, str]:
    """Kind of question → the fixed reply."""
    return yaml.load(_text("replies"), Loader=_LOADER)


def _expanded(template: str, fragments: Fragments) -> str:
    """The regular expression of a phrase or of a part."""

    def filled(placeholder: re.Match[str]) -> str:
        if placeholder["name"] is None:
            but = placeholder["but"]
            excluded = f"(?!(?:{'|'.join(fragments[but])}) )" if but else ""
            return rf"(?:{excluded}\w+ ){{0,{placeholder['most']}}}"
        fragment = fragments[placeholder["name"]]
        return _expanded(fragment if isinstance(fragment, str) else f"(?:{'|'.join(fragment)})", fragments)

    return _PLACEHOLDER.sub(filled, template)


def _text(name: str) -> str:
    return Path(__file__).with_name(f"{name}.yaml").read_text(encoding="utf-8")
