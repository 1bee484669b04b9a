"""Was the test set in the training data? By id, and by runs of 13 words that both contain.

What an adapter was trained on is kept beside it as hashes: enough to compare, nothing to read. A run of 13
words is the unit of GPT-3's check (https://arxiv.org/abs/2005.14165, appendix C). Long runs also recur
innocently (methods sections, disclaimers), so the report gives each question's share, and a question counts
as contaminated from `FLAGGED_SHARE` on.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medqlora.errors import InputError
from medqlora.records import Record

#: words in a run
RUN_WORDS = 13
#: from this share of its runs on, a question counts as contaminated
FLAGGED_SHARE = 0.1
#: raised when the words or the hashing change, so that an old record is refused rather than misread
VERSION = 1

_WORD = re.compile(r"\w+")
#: an id that counts rows; PubMedQA's PMIDs have seven digits and more
_ROW_NUMBER = re.compile(r"(?:[^:]*:)?\d{1,6}(?:#\w+)?")
Hashes = NDArray[np.uint64]


class _WordHashes(dict[str, int]):
    """word → 64 bits of its BLAKE2b; the same in every process, unlike `hash`."""

    def __missing__(self, word: str) -> int:
        digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        self[word] = int.from_bytes(digest, "little")
        return self[word]


def run_hashes(texts: Iterable[str]) -> Hashes:
    """The hashes of all runs of `RUN_WORDS` words in `texts`, sorted and unique, shape (runs,).

    Words are lower-case; punctuation and white space do not count. A text of fewer words is one run of its
    own, so that a copied short question is found too. No run crosses from one text to the next.
    """
    words = _WordHashes()
    parts = [_runs([words[word] for word in _WORD.findall(text.casefold())]) for text in texts]
    return np.unique(np.concatenate(parts)) if parts else np.empty(0, dtype=np.uint64)


def _runs(words: Sequence[int]) -> Hashes:
    """A polynomial of each window's word hashes modulo 2**64, mixed by SplitMix64's finalizer."""
    if not words:
        return np.empty(0, dtype=np.uint64)
    length = min(RUN_WORDS, len(words))
    values = np.array(words, dtype=np.uint64)
    total = np.full(len(values) - length + 1, length, dtype=np.uint64)
    factor = np.uint64(0x9E3779B97F4A7C15)
    for place in range(length):  # arrays wrap around silently, which is what is meant
        total = total * factor + values[place : place + len(total)]
    total = (total ^ (total >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    total = (total ^ (total >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(total ^ (total >> np.uint64(31)))


def texts_of(record: Record) -> list[str]:
    """What of a record is looked for: the question, the passages as one text, and a long answer.

    Passages are joined, and a long answer of fewer words than a run is left out: short sentences ("There was
    no difference.") stand in many records without having been copied.
    """
    texts = [record.question, " ".join(record.contexts)]
    if len(_WORD.findall(record.long_answer)) >= RUN_WORDS:
        texts.append(record.long_answer)
    return [text for text in texts if text.strip()]


@dataclass(frozen=True)
class TrainingTrace:
    """What an adapter was trained on, as far as an overlap needs it.

    Attributes:
        ids: the records' ids.
        hashes: `run_hashes` of their texts.
    """

    ids: tuple[str, ...]
    hashes: Hashes

    @classmethod
    def of(cls, records: Sequence[Record]) -> "TrainingTrace":
        """The trace of these training records."""
        return cls(
            tuple(record.id for record in records),
            run_hashes(text for record in records for text in texts_of(record)),
        )

    def save(self, path: Path) -> None:
        """Writes a `.npz` without pickled objects; the same trace gives the same bytes."""
        aside = path.with_name(f".{path.name}.{os.getpid()}.part")
        # as JSON bytes: an array of texts would cut trailing NULs, and pad every id to the longest
        ids = np.frombuffer(json.dumps(self.ids).encode("ascii"), dtype=np.uint8)
        with aside.open("wb") as file:
            np.savez_compressed(
                file,
                version=np.int64(VERSION),
                run_words=np.int64(RUN_WORDS),
                ids=ids,
                hashes=self.hashes,
            )
        aside.replace(path)

    @classmethod
    def load(cls, path: Path) -> "TrainingTrace":
        """Reads what `save` wrote.

        Raises:
            InputError: the file is missing, is no trace, or was written by another version.
        """
        try:
            with np.load(path, allow_pickle=False) as data:
                version, run_words = int(data["version"]), int(data["run_words"])
                ids = tuple(str(one) for one in json.loads(data["ids"].tobytes()))
                hashes = data["hashes"].astype(np.uint64)
        except FileNotFoundError:
            raise InputError(
                f"{path}: no such file: it is written beside an adapter when it is trained"
            ) from None
        except Exception as error:  # numpy and zipfile raise whatever a broken file makes of them
            raise InputError(
                f"{path}: no record of training texts ({error}): delete it or train again"
            ) from error
        if (version, run_words) != (VERSION, RUN_WORDS):
            raise InputError(
                f"{path}: version {version} of runs of {run_words} words: train again to renew it"
            )
        return cls(ids, hashes)


class QuestionOverlap(NamedTuple):
    """How much of a test question the training texts contain.

    Attributes:
        id: the test record's id.
        shared: how many of its runs of 13 words are in the training texts.
        runs: how many it has.
    """

    id: str
    shared: int
    runs: int

    @property
    def share(self) -> float:
        """`shared` / `runs`, 0 to 1."""
        return self.shared / self.runs if self.runs else 0.0


class Overlap(NamedTuple):
    """What training and test set have in common.

    Attributes:
        ids: ids of both, in the test set's order.
        questions: the test questions that share a run, the largest share first.
        n: the number of test questions.
    """

    ids: tuple[str, ...]
    questions: tuple[QuestionOverlap, ...]
    n: int

    @property
    def contaminated(self) -> tuple[str, ...]:
        """The ids that make a test result doubtful: shared ids, and shares from `FLAGGED_SHARE` on."""
        flagged = [one.id for one in self.questions if one.share >= FLAGGED_SHARE]
        return tuple(dict.fromkeys([*self.ids, *flagged]))

    def to_json(self) -> dict[str, Any]:
        """As plain values, for the report."""
        return {
            "run_words": RUN_WORDS,
            "flagged_share": FLAGGED_SHARE,
            "n": self.n,
            "shared_ids": list(self.ids),
            "questions_sharing_a_run": len(self.questions),
            "contaminated": list(self.contaminated),
            "most_shared": [
                {"id": one.id, "shared": one.shared, "runs": one.runs, "share": one.share}
                for one in self.questions[:20]
            ],
        }


def overlap(train: TrainingTrace, test: Sequence[Record]) -> Overlap:
    """What `train` and the test records have in common.

    An id that only counts rows ("17", "data:17") says nothing by itself: files that have nothing in common count
    theirs alike. It is shared where a run of words is shared too.
    """
    known = set(train.ids)
    questions = []
    for record in test:
        hashes = run_hashes(texts_of(record))
        shared = int(np.isin(hashes, train.hashes, assume_unique=True).sum())
        if shared:
            questions.append(QuestionOverlap(record.id, shared, len(hashes)))
    questions.sort(key=lambda one: (-one.share, one.id))
    sharing = {one.id for one in questions}
    ids = [
        record.id
        for record in test
        if record.id in known and (record.id in sharing or not _ROW_NUMBER.fullmatch(record.id))
    ]
    return Overlap(tuple(ids), tuple(questions), len(test))
