"""Contamination: test questions in the training data, by id and by shared runs of 13 words.

An adapter keeps hashes of its training texts: enough to compare, nothing to read. Runs of 13 words are the unit of
GPT-3's check (https://arxiv.org/abs/2005.14165, appendix C). Some runs also recur innocently (methods sections,
disclaimers). The report therefore gives each question's share, and a question counts as contaminated from
`FLAGGED_SHARE` on.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from medqlora.errors import InputError
from medqlora.evaluation.image_trace import ImageOverlap, ImageTrace
from medqlora.evaluation.report_data import Contamination
from medqlora.records import Record

#: words in a run
RUN_WORDS = 13
#: from this share of its runs on, a question counts as contaminated
FLAGGED_SHARE = 0.1
#: raised when the words or the hashing change, so that an old record is refused rather than misread
VERSION = 1
#: records whose runs `shared_runs` hashes together
_CHUNK = 2048

_WORD = re.compile(r"\w+")
#: an id that counts rows; PubMedQA's PMIDs have seven digits and more
_ROW_NUMBER = re.compile(r"(?:[^:]*:)?\d{1,6}(?:#\w+)?")
Hashes = NDArray[np.uint64]
Numbers = NDArray[np.int64]


class _WordHashes(dict[str, int]):
    """word → 64 bits of its BLAKE2b; the same in every process, unlike `hash`."""

    def __missing__(self, word: str) -> int:
        digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        self[word] = int.from_bytes(digest, "little")
        return self[word]


def _words(text: str) -> list[str]:
    """Words in lower case; punctuation and white space do not count."""
    return _WORD.findall(text.casefold())


def run_hashes(texts: Iterable[str], run_words: int = RUN_WORDS) -> Hashes:
    """The hashes of all runs of `run_words` words in `texts`, sorted and unique, shape (runs,).

    A text of fewer words is a single run, so that a copied short question is detected too. No run crosses from
    one text to the next.
    """
    hashes = _WordHashes()
    parts = []
    for text in texts:
        values = np.array([hashes[word] for word in _words(text)], dtype=np.uint64)
        if len(values):
            length = min(run_words, len(values))
            parts.append(_window_hashes(values, np.arange(len(values) - length + 1), length))
    return np.unique(np.concatenate(parts)) if parts else np.empty(0, dtype=np.uint64)


def _window_hashes(values: Hashes, starts: Numbers, length: int) -> Hashes:
    """The hash of each window of `length` word hashes, shape (starts,).

    A polynomial of the word hashes modulo 2**64, mixed by SplitMix64's finalizer.
    """
    total = np.full(len(starts), length, dtype=np.uint64)
    factor = np.uint64(0x9E3779B97F4A7C15)
    for offset in range(length):  # arrays wrap around silently, which is intended
        total = total * factor + values[starts + offset]
    total = (total ^ (total >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    total = (total ^ (total >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(total ^ (total >> np.uint64(31)))


class SharedRuns(NamedTuple):
    """Runs of `RUN_WORDS` words that training and test records share; shorter texts have none.

    Attributes:
        runs: how many different runs each test record has, shape (test,).
        shared: how many of them training records contain, shape (test,).
        by_training_record: how many runs of test records each training record contains, shape (train,).
    """

    runs: Numbers
    shared: Numbers
    by_training_record: Numbers


def shared_runs(train: Sequence[Record], test: Sequence[Record]) -> SharedRuns:
    """Compares records that are both at hand, without a trace: 200,000 abstracts in seconds.

    Only words of the test set are hashed; a window with any other word cannot be shared and is skipped.
    """
    hashes = _WordHashes()
    vocabulary = {word: hashes[word] for one in test for text in texts_of(one) for word in _words(text)}
    parts = list(_windows(test, vocabulary))
    found = np.concatenate([np.empty(0, np.uint64), *(part[0] for part in parts)])
    owners = np.concatenate([np.empty(0, np.int64), *(part[1] for part in parts)])
    known, numbers = np.unique(found, return_inverse=True)
    # a run that occurs twice in a question counts once
    owners, numbers = np.unique(np.stack([owners, numbers.astype(np.int64)]), axis=1)
    in_training = np.zeros(len(known), dtype=bool)
    by_record = np.zeros(len(train), dtype=np.int64)
    for window, record in _windows(train, vocabulary) if len(known) else ():
        index = np.minimum(np.searchsorted(known, window), len(known) - 1)
        hit = known[index] == window
        in_training[index[hit]] = True
        by_record += np.bincount(record[hit], minlength=len(train))
    runs = np.bincount(owners, minlength=len(test))
    return SharedRuns(runs, np.bincount(owners[in_training[numbers]], minlength=len(test)), by_record)


def _windows(records: Sequence[Record], vocabulary: Mapping[str, int]) -> Iterator[tuple[Hashes, Numbers]]:
    """Hash and record index of each run of words of the vocabulary, shapes (runs,), some records at a time."""
    for start in range(0, len(records), _CHUNK):
        words: list[int] = []
        ends: list[int] = []
        for record in records[start : start + _CHUNK]:
            for text in texts_of(record):
                words += [vocabulary.get(word, 0) for word in _words(text)]
                words.append(0)  # no word: runs do not cross into the next text
            ends.append(len(words))
        values = np.array(words, dtype=np.uint64)
        if len(values) < RUN_WORDS:
            continue
        unknown = np.concatenate([[0], np.cumsum(values == 0)])
        starts = np.flatnonzero(unknown[RUN_WORDS:] == unknown[:-RUN_WORDS])
        yield _window_hashes(values, starts, RUN_WORDS), start + np.searchsorted(ends, starts, "right")


def texts_of(record: Record) -> list[str]:
    """The texts of a record that are compared: question, joined contexts, and a long answer.

    A question with images is one word: the digest of images and text together. The same words are asked of many images,
    and prove nothing.

    A long answer of fewer words than a run is left out: short sentences ("There was no difference.") occur in
    many records without having been copied.
    """
    if record.images:
        asked = [*(image.sha256 for image in record.images), *_words(record.question)]
        return [hashlib.sha256(" ".join(asked).encode("utf-8", "surrogatepass")).hexdigest()]
    texts = [record.question, " ".join(record.contexts)]
    if len(_words(record.long_answer)) >= RUN_WORDS:
        texts.append(record.long_answer)
    return [text for text in texts if text.strip()]


@dataclass(frozen=True)
class TrainingTrace:
    """Ids and run hashes of an adapter's training records.

    Attributes:
        ids: the records' ids.
        hashes: `run_hashes` of their texts.
        images: of their images; None without any.
    """

    ids: tuple[str, ...]
    hashes: Hashes
    images: ImageTrace | None = None

    @classmethod
    def of(cls, records: Sequence[Record]) -> "TrainingTrace":
        """The trace of these training records."""
        return cls(
            tuple(record.id for record in records),
            run_hashes(text for record in records for text in texts_of(record)),
            ImageTrace.of(records),
        )

    def save(self, path: Path) -> None:
        """Writes a `.npz` without pickled objects; the same trace gives the same bytes."""
        aside = path.with_name(f".{path.name}.{os.getpid()}.part")
        # as JSON bytes: an array of texts would cut trailing NULs, and pad every id to the longest
        ids = np.frombuffer(json.dumps(self.ids).encode("ascii"), dtype=np.uint8)
        arrays = {
            "version": np.int64(VERSION),
            "run_words": np.int64(RUN_WORDS),
            "ids": ids,
            "hashes": self.hashes,
            **({} if self.images is None else self.images.arrays()),
        }
        with aside.open("wb") as file:
            np.savez_compressed(file, **arrays)
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
                ids = tuple(str(record_id) for record_id in json.loads(data["ids"].tobytes()))
                hashes = data["hashes"].astype(np.uint64)
                images = ImageTrace.from_arrays(data) if "image_sha256" in data else None
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
        return cls(ids, hashes, images)


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
        images: test images that the training set has, as files or nearly so; None where no question has an image.
    """

    ids: tuple[str, ...]
    questions: tuple[QuestionOverlap, ...]
    n: int
    images: ImageOverlap | None = None

    @property
    def contaminated(self) -> tuple[str, ...]:
        """The ids that make a test result doubtful: shared ids, and shares from `FLAGGED_SHARE` on."""
        flagged = [question.id for question in self.questions if question.share >= FLAGGED_SHARE]
        return tuple(dict.fromkeys([*self.ids, *flagged]))

    def to_json(self) -> Contamination:
        """As plain values, for the report."""
        shared: Contamination = {
            "run_words": RUN_WORDS,
            "flagged_share": FLAGGED_SHARE,
            "n": self.n,
            "shared_ids": list(self.ids),
            "questions_sharing_a_run": len(self.questions),
            "contaminated": list(self.contaminated),
            "most_shared": [
                {
                    "id": question.id,
                    "shared": question.shared,
                    "runs": question.runs,
                    "share": question.share,
                }
                for question in self.questions[:20]
            ],
        }
        if self.images is not None:
            shared["images"] = self.images.to_json()
        return shared


def overlap(train: TrainingTrace, test: Sequence[Record]) -> Overlap:
    """What the training trace and the test records have in common.

    An id that only counts rows ("17", "data:17") proves nothing, since unrelated files number their rows alike. It
    counts as shared where a run of words is shared too.
    """
    known = set(train.ids)
    questions = []
    for record in test:
        hashes = run_hashes(texts_of(record))
        shared = int(np.isin(hashes, train.hashes, assume_unique=True).sum())
        if shared:
            questions.append(QuestionOverlap(record.id, shared, len(hashes)))
    questions.sort(key=lambda question: (-question.share, question.id))
    sharing = {question.id for question in questions}
    ids = [
        record.id
        for record in test
        if record.id in known and (record.id in sharing or not _ROW_NUMBER.fullmatch(record.id))
    ]
    images = None if train.images is None else train.images.overlap(test)
    return Overlap(tuple(ids), tuple(questions), len(test), images)
