"""What an adapter was trained on, as far as it tells which questions it can't answer.

A model is confident far from its training data too: an adapter trained on invented trials answers a question about a
real drug with 96%. So `fit` writes `training_scope.json` into the adapter's folder: hashes of the words that training
questions consist of, and whether each of them had a context.
"""

import base64
import hashlib
import json
import re
import sys
import unicodedata
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medqlora.errors import InputError
from medqlora.evaluation.parsing.text import CJK
from medqlora.records import Record
from medqlora.utils.files import write_text
from medqlora.utils.manifests import leaves

SCOPE_FILE = "training_scope.json"
#: raised when the words or their hashes change, so that an old file is refused rather than misread
VERSION = 1
#: largest share of training questions that the words of all others may leave without a known one
_UNKNOWN_SHARE = 0.01
_FIX = "copy the adapter again, or delete the file: then no question is compared with the training questions"
#: scripts without spaces between words: Thai to Burmese, Khmer, and those of `CJK`
_UNSPACED = rf"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff{CJK}"
_RUN = re.compile(rf"[{_UNSPACED}]+|[^\W{_UNSPACED}]+")
_SPACED = re.compile(rf"[^{_UNSPACED}]")
#: English words that say nothing about a question's subject
_FUNCTION_WORDS = frozenset(
    """
    a about above after again against all also am among an and another any are as at be because been before being below
    best better between both but by can cannot could did do does doing done down during each either else every few for
    from further given had has have having he hence her here hers him his how however if in instead into is it its
    itself less let likely many may me might mine more most much must my neither no non nor not now of off on once one
    only onto or other others our ours out over own per rather same shall she should since so some such than that the
    their theirs them then there these they this those through thus to too two under until up upon us using versus very
    via vs was we were what when where whether which while who whom whose why will with within without would yes yet
    you your yours following correct true false answer question option none except statement
    """.split()  # noqa: SIM905
)


@dataclass(frozen=True)
class TrainingScope:
    """What an adapter was trained on.

    Attributes:
        invented: name of the data set, where it is invented (`Source.invented`); else None.
        always_context: whether each training question had a context.
        words: hashes of the training questions' content words; empty where a question's words are not compared.
        words_of: the texts that `words` are from, for people.
    """

    invented: str | None = None
    always_context: bool = False
    words: frozenset[int] = frozenset()
    words_of: str = "nothing"

    @classmethod
    def of(cls, train: Sequence[Record], invented: str | None = None) -> "TrainingScope":
        """The scope of these training records.

        The words are those of the questions where each question shares some with another: at most 1% may not.
        A small training set has too few for that. Then those of the contexts count too, and if that is not enough,
        words are not compared.

        Args:
            train: the training records.
            invented: name of the data set, where it is invented.
        """
        always = bool(train) and all(record.contexts for record in train)
        questions = [content_words(_asked(record)) for record in train]
        for words_of in ("questions", "questions and contexts"):
            known = questions
            if words_of != "questions":
                known = [
                    words | content_words(record.contexts)
                    for words, record in zip(questions, train, strict=True)
                ]
            records_with = Counter(word for words in known for word in words)
            alone = sum(bool(words) and all(records_with[word] == 1 for word in words) for words in questions)
            if train and alone <= _UNKNOWN_SHARE * len(train):
                return cls(invented, always, frozenset(map(_hash, records_with)), words_of)
        return cls(invented, always)

    def doubts(self, record: Record) -> list[str]:
        """Why a question is far from the training questions, a clause each; empty where it is not."""
        doubts = []
        words = content_words(_asked(record))
        if self.words and words and self.words.isdisjoint(map(_hash, words)):
            doubts.append(f"none of the question's content words occurs in the training {self.words_of}")
        if self.always_context and not record.contexts:
            doubts.append("no context was given although every training question had one")
        return doubts

    @property
    def warning(self) -> str | None:
        """What stands in every answer; None for nothing."""
        if self.invented is None:
            return None
        return f"Trained on invented data ({self.invented}): what this adapter says about real medicine means nothing."

    def save(self, folder: Path) -> None:
        """Writes `training_scope.json` into an adapter's folder.

        Raises:
            OSError: it can't be written.
        """
        hashes = array("I", sorted(self.words))
        if sys.byteorder == "big":
            hashes.byteswap()
        content = {
            "version": VERSION,
            "invented": self.invented,
            "always_context": self.always_context,
            "words_of": self.words_of,
            "words": base64.b64encode(hashes.tobytes()).decode(),
        }
        write_text(folder / SCOPE_FILE, json.dumps(content, indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path, record: Mapping[str, object]) -> "TrainingScope":
        """Reads what `save` wrote. An older adapter has no such file: its record still says that data are invented.

        Args:
            folder: the adapter's, or a merged model's.
            record: its `medqlora.json`.

        Raises:
            InputError: the file is damaged, or a link out of its folder.
        """
        path = folder / SCOPE_FILE
        if leaves(path, folder):
            raise InputError(f"{path}: it is a link to a file outside its folder: {_FIX}")
        if not path.is_file():
            return cls(invented=_invented(record))
        try:
            content = json.loads(path.read_text("utf-8"))
            version, invented, always = content["version"], content["invented"], content["always_context"]
            hashes = array("I", base64.b64decode(content["words"], validate=True))
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise InputError(f"{path}: can't be read ({type(error).__name__}: {error}): {_FIX}") from error
        if version != VERSION:
            raise InputError(f"{path}: version {version!r} is not known here: update medqlora, or {_FIX}")
        if not (invented is None or isinstance(invented, str)) or not isinstance(always, bool):
            raise InputError(f"{path}: invented is {invented!r}, always_context {always!r}: {_FIX}")
        if sys.byteorder == "big":
            hashes.byteswap()
        return cls(invented, always, frozenset(hashes), str(content.get("words_of")))


def content_words(texts: Iterable[str]) -> set[str]:
    """The words of the texts that tell their subject: no function words, no numbers, in lower case and singular.

    Scripts without spaces between words give pairs of neighbouring letters instead.
    """
    words: set[str] = set()
    for text in texts:
        for run in _RUN.findall(unicodedata.normalize("NFKC", text).casefold()):
            if not _SPACED.match(run):
                words.update(run[index : index + 2] for index in range(max(1, len(run) - 1)))
            elif len(run) > 1 and not run.isnumeric() and run not in _FUNCTION_WORDS:
                words.add(run[:-1] if len(run) > 3 and run.endswith("s") else run)
    return words


def _asked(record: Record) -> list[str]:
    return [record.question, *record.options.values()]


def _hash(word: str) -> int:
    """32 bits of the word's BLAKE2b; the same in every process, unlike `hash`."""
    return int.from_bytes(
        hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=4).digest(), "little"
    )


def _invented(record: Mapping[str, object]) -> str | None:
    """The data set's name in an older adapter's record, where that data set is invented."""
    from medqlora.data.sources.synthetic_trials import SyntheticTrials

    data = record.get("data")
    named = isinstance(data, Mapping) and data.get("name") == SyntheticTrials.name
    return SyntheticTrials.name if named else None
