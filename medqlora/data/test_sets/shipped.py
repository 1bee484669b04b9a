"""The shipped test questions: their files, and how a text becomes a fingerprint."""

import hashlib
import html
import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

#: words at a question's end with a hash of their own: most texts differ in these
TAIL_WORDS = 4

_WORD = re.compile(r"[^\W_]+")
_INVISIBLE = re.compile("[\xad\u200b-\u200f\u2060-\u2064\ufeff]")
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|[nrt])")  # an escaped letter or newline in a text of JSON


class BenchmarkTest(NamedTuple):
    """The test questions of one benchmark.

    Attributes:
        benchmark: its name.
        ids: how ids are compared: "pmid" finds the number inside an id, "exact" compares complete ids without case,
            "none" does not compare them.
        about: the questions' source and licence.
        questions: id → `fingerprint` of the question.
    """

    benchmark: str
    ids: Literal["pmid", "exact", "none"]
    about: str
    questions: Mapping[str, Sequence[int | str]]


class Index(NamedTuple):
    """All shipped sets: `hashes` is hash → (benchmark, id), `tails` is tail → numbers of words."""

    pmids: dict[str, str]
    exact: dict[str, tuple[str, str]]
    hashes: dict[str, tuple[str, str]]
    tails: dict[str, tuple[int, ...]]


def fingerprint(question: str) -> list[int | str]:
    """`[words, tail, hash]` of a question.

    These are the number of its words, and the SHA-256 of its last four words and of all words, truncated to 4 and 10
    bytes, in hex. Words are NFKC, case-folded; white space and punctuation do not count.
    """
    words = words_of(normalized(question))
    return [len(words), digest_of(words[-TAIL_WORDS:], 4), digest_of(words, 10)]


def write_test_set(
    file: Path,
    benchmark: str,
    ids: Literal["pmid", "exact", "none"],
    about: str,
    questions: Mapping[str, str],
) -> None:
    """Writes a benchmark's file, one question per line.

    Args:
        file: the file to write.
        benchmark, ids, about: as in `BenchmarkTest`.
        questions: id → the question's text.
    """
    lines = [f"  {json.dumps(key)}: {json.dumps(fingerprint(text))}" for key, text in questions.items()]
    head = {"benchmark": benchmark, "ids": ids, "about": about}
    start = json.dumps(head, indent=1)[:-2]
    file.write_text(start + ',\n "questions": {\n' + ",\n".join(lines) + "\n }\n}\n", encoding="ascii")


@cache
def shipped_test_sets() -> tuple[BenchmarkTest, ...]:
    """The benchmarks whose test questions ship with the project."""
    files = sorted(Path(__file__).parent.glob("*.json"))
    return tuple(BenchmarkTest(**json.loads(file.read_text("ascii"))) for file in files)


@cache
def index_of_all() -> Index:
    """All shipped sets, for look-ups."""
    index = Index({}, {}, {}, {})
    for test_set in shipped_test_sets():
        for key, (words, tail, digest) in test_set.questions.items():
            if test_set.ids == "pmid":
                index.pmids.setdefault(key, test_set.benchmark)
            elif test_set.ids == "exact":
                index.exact.setdefault(key.casefold(), (test_set.benchmark, key))
            index.hashes.setdefault(str(digest), (test_set.benchmark, key))
            index.tails[str(tail)] = (*index.tails.get(str(tail), ()), int(words))
    return index


def normalized(text: str) -> str:
    """NFKC text without HTML entities, JSON escapes and invisible characters."""
    if "&" in text:
        text = html.unescape(text)
    if "\\" in text:
        text = _ESCAPE.sub(lambda match: chr(int(match[1], 16)) if match[1] else "\n", text)
    return text if text.isascii() else _INVISIBLE.sub("", unicodedata.normalize("NFKC", text))


def words_of(text: str) -> list[str]:
    """The case-folded words of a text, in order."""
    return _WORD.findall(text.casefold())


def digest_of(words: Sequence[str], size: int) -> str:
    """The first `size` bytes of the words' SHA-256, in hex."""
    text = " ".join(words).encode("utf-8", "surrogatepass")
    return hashlib.sha256(text).digest()[:size].hex()
