"""Test questions of published benchmarks, as ids and hashes: no source may train on them.

Each .json file in this folder is one benchmark: its name, how its ids are compared, and `[words, tail, hash]`
(`fingerprint`) of each test question. No text of a question is shipped. To add a benchmark, write one file:

    from medqlora.data.test_sets import write_test_set
    questions = {pmid: row["QUESTION"] for pmid, row in json.load(open("ori_pqal.json")).items() if pmid in test}
    write_test_set(Path("medqlora/data/test_sets/pubmedqa.json"), "PubMedQA", "pmid", about, questions)

`tests/unit/data/test_test_sets.py` compares the shipped file with the real data where a copy is present.
"""

import hashlib
import html
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

from medqlora.data.checks import at
from medqlora.errors import InputError
from medqlora.records import Record

#: the option that allows test questions in training and validation
OPTION = "--data.allow_test_questions"

#: words at a question's end with a hash of their own: most texts differ in these
_TAIL_WORDS = 4
#: a shorter question ("Is it Crohn's disease?") counts as a complete text or line, or after a heading
_LEAST_WORDS = 6
_HEADINGS = ("question", "query", "problem", "input", "human", "user", "title", "q")
#: characters to search before a question mark, per word of the longest question
_REACH = 24
#: a context of fewer characters may be a question
_SHORT_CONTEXT = 400

_WORD = re.compile(r"[^\W_]+")
_MARK = re.compile(r"[^\W_][^\w?]*\?")  # only one of several marks
_INVISIBLE = re.compile("[\xad\u200b-\u200f\u2060-\u2064\ufeff]")
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|[nrt])")  # an escaped letter or newline in a text of JSON
_TAG = re.compile(r"<[|/]?[a-zA-Z][\w| ]{0,30}>|\[/?INST\]")  # of HTML, or of a chat template
_NUMBER = re.compile(r"[\W_]*\d{1,4}\s*[.):]\s+")  # "12. " before a question
_HEADER = re.compile(
    r"^[ \t#*>|\"'{\[(-]*(?:\d+[.)]\s*)?(?:" + "|".join(_HEADINGS) + r")\b[ \t\d*\"'-]*[:.=)]+(.+)$",
    re.IGNORECASE | re.MULTILINE,
)
#: PMIDs have up to 8 digits, those of the shipped sets 7 or 8; letters before them form a usual name
_PMID_INSIDE = re.compile(
    r"(?<![0-9a-z])(?:pmid|pubmed|pubid|pubmedqa|pqal|pqa|id|q)?0*([1-9]\d{6,7})(?![0-9a-z])", re.IGNORECASE
)
#: an id that is a PMID and nothing else, of any length; adjacent repetitions match different characters
_PMID_WHOLE = re.compile(r"(?:.*/)?(?:pmid|pubmed)?[\s:_#-]*0*([1-9]\d*)(?:\.0)?/?", re.IGNORECASE)


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


class Leak(NamedTuple):
    """A record that is a test question of a benchmark.

    Attributes:
        record: the record.
        benchmark: the benchmark's name.
        question: the test question's id there.
        by: whether the id or the text of the question matches.
    """

    record: Record
    benchmark: str
    question: str
    by: Literal["id", "text"]


class _Index(NamedTuple):
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
    words = _words(_plain(question))
    return [len(words), _digest(words[-_TAIL_WORDS:], 4), _digest(words, 10)]


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
def _index() -> _Index:
    index = _Index({}, {}, {}, {})
    for test_set in shipped_test_sets():
        for key, (words, tail, digest) in test_set.questions.items():
            if test_set.ids == "pmid":
                index.pmids.setdefault(key, test_set.benchmark)
            elif test_set.ids == "exact":
                index.exact.setdefault(key.casefold(), (test_set.benchmark, key))
            index.hashes.setdefault(str(digest), (test_set.benchmark, key))
            index.tails[str(tail)] = (*index.tails.get(str(tail), ()), int(words))
    return index


@cache
def _longest() -> int:
    """The words of the longest question."""
    return max((count for counts in _index().tails.values() for count in counts), default=0)


def find_leaks(records: Iterable[Record]) -> list[Leak]:
    """The records that are a benchmark's test question, by an id or by the text of the question or of a context.

    Every form of an id counts: 12377809, "PMID: 12377809", "012377809", "ori_pqal:12377809" and the address of its
    PubMed page. A question also counts with other options or contexts, and inside a longer text ("Question: …?").
    """
    leaks = []
    for record in records:
        if (match := by_id(record)) is not None:
            leaks.append(Leak(record, *match, "id"))
        elif (match := _by_text(record)) is not None:
            leaks.append(Leak(record, *match, "text"))
    return leaks


def by_id(record: Record) -> tuple[str, str] | None:
    """Benchmark and id of the test question that one of the record's ids matches; None where there is none."""
    index = _index()
    for text in (record.id, *record.aliases):
        text = text.strip()
        pmid = _PMID_WHOLE.fullmatch(text)
        numbers = [pmid[1]] if pmid else [match[1] for match in _PMID_INSIDE.finditer(text)]
        for number in numbers:
            if number in index.pmids:
                return index.pmids[number], number
        if text.casefold() in index.exact:
            return index.exact[text.casefold()]
    return None


def _by_text(record: Record) -> tuple[str, str] | None:
    match = _find(record.question, by_line=True)
    for context in record.contexts:
        match = match or _find(context, by_line=False)
    for name in record.context_labels:  # in PubMedQA a passage's title is the question
        match = match or (_find(name, by_line=True) if "?" in name else None)
    return match


def _find(text: str, *, by_line: bool) -> tuple[str, str] | None:
    """The test question in a text.

    Args:
        text: the text.
        by_line: whether each line, or a part of it up to its question mark, may be the question; else the question
            is a complete short text, follows a heading, or ends with a question mark.
    """
    if not by_line and "?" not in text and "\uff1f" not in text and not _HEADER.search(text):
        return None
    text = _plain(text)
    hashes = _index().hashes
    for candidate in _candidates(text, by_line):
        match = hashes.get(_digest(_words(candidate), 10))
        if match is not None:
            return match
    return _ending_in_a_question_mark(text)


def _candidates(text: str, by_line: bool) -> Iterator[str]:
    if by_line or len(text) < _SHORT_CONTEXT:
        yield text
    if by_line:
        lines = _TAG.sub("\n", text).splitlines()
        yield from lines if len(lines) > 1 else ()
        for line in lines:  # "12. … ?", "… ? Answer with yes or no." and "Answer with yes or no: … ?"
            start = _NUMBER.match(line)
            line = line[start.end() :] if start else line
            question, mark, _ = line.partition("?")
            if mark or start:
                yield question
                yield question.rpartition(": ")[2]
    for match in _HEADER.finditer(text):
        yield match[1]
        if "?" in match[1]:  # "Question: … ? Answer with yes or no."
            yield match[1].partition("?")[0]
            yield match[1].rpartition("?")[0]


def _ending_in_a_question_mark(text: str) -> tuple[str, str] | None:
    index = _index()
    reach = _REACH * _longest()
    for mark in _MARK.finditer(text):
        end = mark.start() + 1
        words = _words(text[max(0, end - reach) : end])
        tail = words[-_TAIL_WORDS:]
        if tail and tail[0] in _HEADINGS:  # of a question that is shorter than a tail
            tail = tail[1:]
        for count in index.tails.get(_digest(tail, 4), ()):
            headed = words[-count - 1 : -count] and words[-count - 1] in _HEADINGS
            if count <= len(words) and (headed or count >= _LEAST_WORDS):
                match = index.hashes.get(_digest(words[-count:], 10))
                if match is not None:
                    return match
    return None


def _plain(text: str) -> str:
    if "&" in text:
        text = html.unescape(text)
    if "\\" in text:
        text = _ESCAPE.sub(lambda match: chr(int(match[1], 16)) if match[1] else "\n", text)
    return text if text.isascii() else _INVISIBLE.sub("", unicodedata.normalize("NFKC", text))


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _digest(words: Sequence[str], size: int) -> str:
    text = " ".join(words).encode("utf-8", "surrogatepass")
    return hashlib.sha256(text).digest()[:size].hex()


def reject_test_questions(sets: Mapping[str, Sequence[Record]], *, option: bool = True) -> None:
    """Rejects benchmarks' test questions in the training and validation set.

    Args:
        sets: the name of a set → its records.
        option: whether the message names the option that allows it.

    Raises:
        InputError: a record is a test question; names the first, and their number.
    """
    by_set = {name: find_leaks(records) for name, records in sets.items()}
    leaks = [(name, leak) for name, part in by_set.items() for leak in part]
    if not leaks:
        return
    name, first = leaks[0]
    what = f"the {_id_name(first)}" if first.by == "id" else f"the question of the {_id_name(first)}"
    counts = " and ".join(
        f"{len(part):,} of the {len(sets[name]):,} {name} records" for name, part in by_set.items() if part
    )
    them = "it" if len(leaks) == 1 else "them"
    anyway = f", or pass {OPTION} true, and the adapter will say that it was" if option else ""
    raise InputError(
        f"{at(first.record)}: the {name} set holds {what}, which is in {first.benchmark}'s official test set "
        f"({counts} are test questions): remove {them}, or the test score means nothing{anyway}"
    )


def _id_name(leak: Leak) -> str:
    kind = next(part.ids for part in shipped_test_sets() if part.benchmark == leak.benchmark)
    return f"PMID {leak.question}" if kind == "pmid" else f"id {leak.question}"


def summary(train: Sequence[Record], dev: Sequence[Record]) -> dict[str, dict[str, int]]:
    """Benchmark → the number of its test questions in the training and the validation set.

    The adapter's record keeps it; empty where there are none."""
    counts: dict[str, dict[str, int]] = {}
    for name, records in (("train", train), ("validation", dev)):
        for leak in find_leaks(records):
            counts.setdefault(leak.benchmark, {"train": 0, "validation": 0})[name] += 1
    return counts


def recorded_counts(value: object) -> dict[str, dict[str, int]]:
    """The value of `summary` in an adapter's record, which may have any content; {} where there is none."""
    sets = value.items() if isinstance(value, Mapping) else ()
    return {
        str(benchmark): {str(name): count for name, count in of_set.items() if isinstance(count, int)}
        for benchmark, of_set in sets
        if isinstance(of_set, Mapping)
    }


def told(counts: Mapping[str, Mapping[str, int]]) -> str:
    """The summary as text: "449 training and 51 validation records are test questions of PubMedQA"."""
    parts = [
        f"{of_set.get('train', 0):,} training and {of_set.get('validation', 0):,} validation records are test "
        f"questions of {benchmark}"
        for benchmark, of_set in counts.items()
    ]
    return "; ".join(parts)
