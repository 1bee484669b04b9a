"""Runs of 13 words: the unit in which two texts are compared for copied passages.

GPT-3's check uses it (https://arxiv.org/abs/2005.14165, appendix C). Words are lower-case; punctuation and white space
do not count, and no run crosses from one text to the next.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from medqlora.records import Record

#: words in a run
RUN_WORDS = 13

#: records whose runs are computed together
_CHUNK = 2048
_WORD = re.compile(r"\w+")
Hashes = NDArray[np.uint64]
Counts = NDArray[np.int64]


def words_of(text: str) -> list[str]:
    """The words of a text, in order."""
    return _WORD.findall(text.casefold())


def texts_of(record: Record) -> list[str]:
    """The texts of a record that are compared: the question, the passages as one text, and a long answer.

    Passages are joined, and a long answer of fewer words than a run is left out: short sentences ("There was no
    difference.") stand in many records that were not copied.
    """
    texts = [record.question, " ".join(record.contexts)]
    if len(words_of(record.long_answer)) >= RUN_WORDS:
        texts.append(record.long_answer)
    return [text for text in texts if text.strip()]


class _WordHashes(dict[str, int]):
    """word → 64 bits of its BLAKE2b; the same in every process, unlike `hash`."""

    def __missing__(self, word: str) -> int:
        digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        self[word] = int.from_bytes(digest, "little")
        return self[word]


def run_hashes(texts: Iterable[str]) -> Hashes:
    """The hashes of all runs in `texts`, sorted and unique, shape (runs,); the same in every process.

    A text of fewer words is one run, so that a copied short question is found too.
    """
    hashes = _WordHashes()
    parts = [_window_hashes([hashes[word] for word in words_of(text)]) for text in texts]
    return np.unique(np.concatenate(parts)) if parts else np.empty(0, dtype=np.uint64)


def _window_hashes(words: Sequence[int]) -> Hashes:
    """A polynomial of each window's word hashes modulo 2**64, mixed by SplitMix64's finalizer."""
    if not words:
        return np.empty(0, dtype=np.uint64)
    length = min(RUN_WORDS, len(words))
    values = np.array(words, dtype=np.uint64)
    total = np.full(len(values) - length + 1, length, dtype=np.uint64)
    factor = np.uint64(0x9E3779B97F4A7C15)
    for offset in range(length):  # numpy's unsigned integers wrap around silently, as intended
        total = total * factor + values[offset : offset + len(total)]
    total = (total ^ (total >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    total = (total ^ (total >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(total ^ (total >> np.uint64(31)))


class SharedRuns(NamedTuple):
    """The runs that a training and a test set have in common.

    Attributes:
        runs: the number of different runs of each test record, shape (test,).
        shared: how many of these a training record holds too, shape (test,).
        by_record: how many runs of test records each training record holds, shape (train,).
    """

    runs: Counts
    shared: Counts
    by_record: Counts


def shared_runs(train: Sequence[Record], test: Sequence[Record]) -> SharedRuns:
    """Compares two sets of records; texts of fewer than `RUN_WORDS` words have no run here.

    A word is represented by its number in the test set's vocabulary, so the words of 200,000 training abstracts need
    no hash.
    """
    vocabulary: dict[str, int] = {}
    for record in test:
        for text in texts_of(record):
            for word in words_of(text):
                vocabulary.setdefault(word, len(vocabulary) + 1)
    parts = list(_runs(test, vocabulary))
    hashes = np.concatenate([np.empty(0, np.uint64), *(part[0] for part in parts)])
    owners = np.concatenate([np.empty(0, np.int64), *(part[1] for part in parts)])
    known, numbers = np.unique(hashes, return_inverse=True)
    # a repeated run of one question counts once
    owners, numbers = np.unique(np.stack([owners, numbers.astype(np.int64)]), axis=1)
    is_shared = np.zeros(len(known), dtype=bool)
    by_record = np.zeros(len(train), dtype=np.int64)
    for run, record_index in _runs(train, vocabulary) if len(known) else ():
        nearest = np.minimum(np.searchsorted(known, run), len(known) - 1)
        hit = known[nearest] == run
        is_shared[nearest[hit]] = True
        by_record += np.bincount(record_index[hit], minlength=len(train))
    count = len(test)
    shared = np.bincount(owners[is_shared[numbers]], minlength=count)
    return SharedRuns(np.bincount(owners, minlength=count), shared, by_record)


def _runs(records: Sequence[Record], vocabulary: Mapping[str, int]) -> Iterator[tuple[Hashes, Counts]]:
    """For each chunk of records: hash and record index of each run of words of the vocabulary, shape (runs,) each."""
    number = vocabulary.get
    for start in range(0, len(records), _CHUNK):
        words: list[int] = []
        ends: list[int] = []
        for record in records[start : start + _CHUNK]:
            for text in texts_of(record):
                words += [number(word, 0) for word in words_of(text)]
                words.append(0)  # no word: a run ends with its text
            ends.append(len(words))
        values = np.array(words, dtype=np.uint64)
        if len(values) < RUN_WORDS:
            continue
        windows = len(values) - RUN_WORDS + 1
        unknown = np.concatenate([[0], np.cumsum(values == 0)])
        starts = np.flatnonzero(unknown[RUN_WORDS:] == unknown[:windows])
        total = np.zeros(len(starts), dtype=np.uint64)
        for offset in range(RUN_WORDS):  # wraps around silently; an odd factor loses no bit
            mixed = (total ^ (total >> np.uint64(29))) * np.uint64(0x9E3779B97F4A7C15)
            total = mixed + values[starts + offset]
        yield total, start + np.searchsorted(ends, starts, "right")
