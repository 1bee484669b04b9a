"""Contamination: test questions in the training data, by id and by shared runs of 13 words.

An adapter keeps hashes of its training texts: enough to compare, nothing to read. Runs of 13 words are the unit of
GPT-3's check (https://arxiv.org/abs/2005.14165, appendix C). Some runs also recur innocently (methods sections,
disclaimers). The report therefore gives each question's share, and a question counts as contaminated from
`FLAGGED_SHARE` on.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from medqlora.data.word_runs import RUN_WORDS, Hashes, run_hashes, texts_of
from medqlora.errors import InputError
from medqlora.evaluation.report_data import Contamination
from medqlora.records import Record
from medqlora.utils.files import replacing

#: from this share of its runs on, a question counts as contaminated
FLAGGED_SHARE = 0.1
#: raised when the words or the hashing change, so that an old record is refused rather than misread
VERSION = 1

#: an id that counts rows; PubMedQA's PMIDs have seven digits and more
_ROW_NUMBER = re.compile(r"(?:[^:]*:)?\d{1,6}(?:#\w+)?")


@dataclass(frozen=True)
class TrainingTrace:
    """Ids and run hashes of an adapter's training records.

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
        # as JSON bytes: an array of texts would cut trailing NULs, and pad every id to the longest
        ids = np.frombuffer(json.dumps(self.ids).encode("ascii"), dtype=np.uint8)
        with replacing(path) as file:
            np.savez_compressed(
                file,
                version=np.int64(VERSION),
                run_words=np.int64(RUN_WORDS),
                ids=ids,
                hashes=self.hashes,
            )

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
        flagged = [question.id for question in self.questions if question.share >= FLAGGED_SHARE]
        return tuple(dict.fromkeys([*self.ids, *flagged]))

    def to_json(self) -> Contamination:
        """As plain values, for the report."""
        return {
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
    return Overlap(tuple(ids), tuple(questions), len(test))
