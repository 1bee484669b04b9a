"""The choice of a library's adapter for a question: TF-IDF and logistic regression, calibrated, with abstention.

The classifier is trained by `topic_training`, with scikit-learn. It is stored as plain arrays, and applied here without
scikit-learn: nothing is unpickled.
"""

import json
import math
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from medqlora.errors import InputError
from medqlora.inference.calibration import Calibration
from medqlora.records import Record

#: raised when the words or the features change, so that an old file is refused rather than misread
VERSION = 1
#: scikit-learn's default words: two letters or digits at least
_WORD = re.compile(r"(?u)\b\w\w+\b")

Array = NDArray[np.float64]


class Route(NamedTuple):
    """Where a question goes.

    Attributes:
        name: of the adapter that answers it.
        likeliest: the adapter of the likeliest topic.
        confidence: its calibrated probability.
        abstained: whether a specialised adapter was likeliest, and not likely enough.
    """

    name: str
    likeliest: str
    confidence: float
    abstained: bool


@dataclass(frozen=True, eq=False)
class TopicRouter:
    """A topic classifier whose topics are the adapters of a library.

    Attributes:
        names: the adapters, a class each.
        general: that of them which takes every other question.
        vocabulary: word → feature.
        idf: inverse document frequencies, shape (features,).
        coefficients, intercepts: of the logistic regression, shapes (names, features) and (names,).
        calibration: temperature and threshold, from the classifier's out-of-fold predictions.
    """

    names: tuple[str, ...]
    general: str
    vocabulary: Mapping[str, int]
    idf: Array
    coefficients: Array
    intercepts: Array
    calibration: Calibration

    def features(self, text: str) -> Array:
        """TF-IDF with 1 + log(count), at unit length: as `TfidfVectorizer(sublinear_tf=True)`, shape (features,)."""
        row = np.zeros(len(self.idf))
        for word, count in Counter(_WORD.findall(text.lower())).items():
            place = self.vocabulary.get(word)
            if place is not None:
                row[place] = (1 + math.log(count)) * self.idf[place]
        norm = float(np.linalg.norm(row))
        return row / norm if norm else row

    def probabilities(self, text: str) -> Array:
        """The calibrated probability of each name, shape (names,)."""
        logits = (self.coefficients @ self.features(text) + self.intercepts) / self.calibration.temperature
        weights = np.exp(logits - logits.max())
        return np.asarray(weights / weights.sum())

    def route(self, record: Record) -> Route:
        """The adapter for a question; the general one where no topic is likely enough."""
        shares = self.probabilities(routed_text(record))
        best = int(shares.argmax())
        likeliest, confidence = self.names[best], float(shares[best])
        if likeliest == self.general:
            return Route(self.general, likeliest, confidence, abstained=False)
        sure = self.calibration.caution is None and confidence >= self.calibration.threshold
        return Route(likeliest if sure else self.general, likeliest, confidence, abstained=not sure)

    def save(self, file: Path) -> None:
        """Writes a `.npz` without pickled objects; the same router gives the same bytes."""
        words = sorted(self.vocabulary, key=self.vocabulary.__getitem__)
        text = json.dumps(
            {
                "names": self.names,
                "general": self.general,
                "words": words,
                "calibration": self.calibration.to_json(),
            }
        )
        aside = file.with_name(f".{file.name}.{os.getpid()}.part")
        with aside.open("wb") as stream:
            np.savez_compressed(
                stream,
                version=np.int64(VERSION),
                text=np.frombuffer(text.encode("utf-8"), dtype=np.uint8),
                idf=self.idf,
                coefficients=self.coefficients,
                intercepts=self.intercepts,
            )
        aside.replace(file)

    @classmethod
    def load(cls, file: Path) -> "TopicRouter":
        """Reads what `save` wrote.

        Raises:
            InputError: the file is damaged, or of another version.
        """
        fix = "add or remove an adapter (`medqlora library`), which trains it anew"
        try:
            # of the bytes: numpy leaves a damaged file open
            with np.load(BytesIO(file.read_bytes()), allow_pickle=False) as data:
                version = int(data["version"])
                text = json.loads(data["text"].tobytes())
                idf, coefficients, intercepts = (
                    data[name].astype(np.float64) for name in ("idf", "coefficients", "intercepts")
                )
            names, general = tuple(map(str, text["names"])), str(text["general"])
            vocabulary = {str(word): place for place, word in enumerate(text["words"])}
            shapes = (idf.shape, coefficients.shape, intercepts.shape)
            whole = (
                shapes == ((len(vocabulary),), (len(names), len(vocabulary)), (len(names),))
                and general in names
            )
        except Exception as error:  # numpy and zipfile raise whatever a broken file makes of them
            raise InputError(f"{file}: no topic classifier ({type(error).__name__}): {fix}") from error
        if version != VERSION or not whole:
            raise InputError(f"{file}: a topic classifier of version {version}, or damaged: {fix}")
        calibration = Calibration.from_json(text["calibration"], str(file))
        return cls(names, general, vocabulary, idf, coefficients, intercepts, calibration)


def routed_text(record: Record) -> str:
    """What a question is routed by: the question with its options, since a context is not always given."""
    return "\n".join((record.question, *record.options.values()))


def shares(router: TopicRouter, records: Sequence[Record]) -> dict[str, int]:
    """How many of the questions each adapter gets."""
    return dict(Counter(router.route(record).name for record in records))
