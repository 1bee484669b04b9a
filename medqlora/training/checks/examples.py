"""What is to be learned, looked at before the first step: whole answers, labels that differ, no test question.

What is checked elsewhere isn't checked again: that a question fits without its context and that prompt and
tokenizer go together by `data.encode`; how many contexts were shortened is said by the datamodule; that no
test question is trained on under another id by each source (`data.checks`, `data.benchmark.kept_apart`), and
PubMedQA's by their PMIDs. The sources compare whole questions. An abstract that was copied into a longer text,
or with a word changed, is found here, by the runs of 13 words that `test` looks for too; and a source of the
user's own may do nothing of all this.
"""

import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medqlora.data import BioASQ, MedicalMMLU, MedMCQA, MedQA, Prompt, Source, encode_all
from medqlora.data.checks import at_with_id
from medqlora.data.encoding.labels import shared_prefix
from medqlora.errors import InputError
from medqlora.evaluation.contamination import FLAGGED_SHARE, RUN_WORDS, texts_of
from medqlora.records import Encoded, Record

#: exam questions recur in the splits that their authors made: told, since the user can't put it right
_OFFICIAL = (BioASQ, MedMCQA, MedQA, MedicalMMLU)
#: examples that are decoded, or searched, together
_CHUNK = 2048
_STALE = "empty the cache's folder 'encoded' ($MEDQLORA_CACHE, else ~/.cache/medqlora) and start again"
_WORD = re.compile(r"\w+")  # as `contamination` reads words; a test pins it


def check_examples(data: Any, tokenizer: Any) -> list[str]:
    """Checks every training example of a fit, and that the test set is none of them.

    Args:
        data: the datamodule, which has read its training set.
        tokenizer: the base's.

    Returns:
        What is worth saying, a line each; nothing where all is as it should be.

    Raises:
        InputError: as `check_answers` and `check_apart`.
    """
    check_answers(data.train, data.records, data.prompt, tokenizer, data.end_token_ids)
    trained = [data.records[example.id] for example in data.train]
    return check_apart(trained, data.held_out, data.source)


def check_answers(
    examples: Sequence[Encoded],
    records: Mapping[str, Record],
    prompt: Prompt,
    tokenizer: Any,
    end_token_ids: Sequence[int],
) -> None:
    """Every example has its whole answer to learn, and labels that can be told apart after its prompt.

    The answer's tokens are decoded and compared with what the prompt writes, but for white space around it.
    Some tokenizers don't give back what they were given (lower case, other forms of a character): what
    differs is tokenized anew, without a limit, and has to be the same tokens.

    Args:
        examples: what is trained on.
        records: id → record, of these examples at least.
        prompt: how they were put.
        tokenizer: what encoded them.
        end_token_ids: the tokens of which one ends each answer.

    Raises:
        InputError: an example isn't so; names it.
    """
    labels_fault = cache(_labels_fault)
    for chunk in _chunks(examples):
        texts = tokenizer.backend_tokenizer.decode_batch(
            [list(example.completion[:-1]) for example in chunk], skip_special_tokens=False
        )
        doubtful = []
        for example, text in zip(chunk, texts, strict=True):
            record = records[example.id]
            fault = _completion_fault(example, text, end_token_ids) or labels_fault(example.labels)
            if fault is None and record.labels and record.answer in record.labels and example.labels:
                gold = example.labels[record.labels.index(record.answer)]
                if tuple(example.completion[: len(gold)]) != gold:
                    fault = (
                        f"the answer doesn't begin with the tokens of its label {record.answer!r}: {_STALE}"
                    )
            if fault is not None:
                raise InputError(f"{at_with_id(record)}: {fault}")
            wanted = prompt.completion(record.answer or "", record.long_answer, record.labels)
            if text.strip() != wanted.strip():
                doubtful.append(example)
        again = encode_all(
            [records[one.id] for one in doubtful],
            prompt,
            tokenizer,
            sys.maxsize,
            progress=False,
            cached=False,
        )
        for example, whole in zip(doubtful, again, strict=True):
            if list(example.completion) != list(whole.completion):
                raise InputError(
                    f"{at_with_id(records[example.id])}: the answer's {len(example.completion)} tokens are not the "
                    f"{len(whole.completion)} that it has in full: {_STALE}"
                )


def _completion_fault(example: Encoded, text: str, end_token_ids: Sequence[int]) -> str | None:
    if not example.completion:
        return "the example has no tokens to learn: give it an answer, or remove it"
    last = example.completion[-1]
    if last not in end_token_ids:
        ends = " or ".join(map(str, end_token_ids))
        return f"the answer's last token is {last}, and {ends} ends an answer: {_STALE}"
    if not text.strip():
        return "the answer is empty: give one, or remove the record"
    return None


def _labels_fault(labels: tuple[tuple[int, ...], ...]) -> str | None:
    """Scores are compared from the first token on which two labels differ: there has to be one."""
    shared = shared_prefix(labels)
    if shared is None:
        return None
    shorter, longer = shared
    return (
        f"after the prompt the tokens of label {shorter + 1} {list(labels[shorter])} begin those of label {longer + 1} "
        f"{list(labels[longer])}, so they can't be told apart: rename one (--data.source.labels) or use another "
        "--data.prompt"
    )


def check_apart(train: Sequence[Record], test: Sequence[Record], source: Source) -> list[str]:
    """No test question is trained on: not its id, and not a tenth of its runs of 13 words.

    Fewer runs recur innocently (methods sections, disclaimers) and are told. Texts of fewer words are left
    to the sources, which compare whole questions: a short exam question may recur with other options.

    Args:
        train: the records that are trained on.
        test: the records that aren't to be.
        source: where both come from.

    Returns:
        A line where runs are shared, else nothing.

    Raises:
        InputError: a test question is trained on; names both records. Of the benchmarks with official splits
            shared runs are told instead.
    """
    held_out = {record.id: record for record in test}
    for record in train:
        if record.id in held_out:
            raise InputError(
                f"{at_with_id(record)}: the id is also in the test set, at {at_with_id(held_out[record.id])}: "
                "remove it from the training set, or the test score means nothing"
            )
    runs, shared, _ = _shared_runs(train, test)
    if not shared.any():
        return []
    shares = shared / np.maximum(1, runs)
    worst = int(shares.argmax())
    flagged = int((shares >= FLAGGED_SHARE).sum())
    if flagged and not isinstance(source, _OFFICIAL):
        twin = int(_shared_runs(train, [test[worst]])[2].argmax())
        raise InputError(
            f"{at_with_id(train[twin])}: holds text of the test question at {at_with_id(test[worst])}; the "
            f"training set has {shared[worst]:,} of its {runs[worst]:,} runs of {RUN_WORDS} words "
            f"({flagged:,} test questions have {FLAGGED_SHARE:.0%} or more of theirs there): remove it from one of "
            "the sets, or the test score means nothing"
        )
    line = (
        f"Note: {int((shared > 0).sum()):,} of {len(test):,} test questions share runs of {RUN_WORDS} words with "
        f"the training set, at most {shares[worst]:.0%} of a question's ({at_with_id(test[worst])})"
    )
    return [f"{line}; {flagged:,} share {FLAGGED_SHARE:.0%} or more" if flagged else line]


def _shared_runs(
    train: Sequence[Record], test: Sequence[Record]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """How many different runs each test record has, shape (test,), how many of them training records hold too,
    shape (test,), and how many runs of test records each training record holds, shape (train,).

    A word counts as its number in the test set's vocabulary: the words of 200,000 abstracts need no hash.
    """
    vocabulary: dict[str, int] = {}
    for record in test:
        for text in texts_of(record):
            for word in _WORD.findall(text.casefold()):
                vocabulary.setdefault(word, len(vocabulary) + 1)
    parts = list(_runs(test, vocabulary))
    hashes = np.concatenate([np.empty(0, np.uint64), *(part[0] for part in parts)])
    owners = np.concatenate([np.empty(0, np.int64), *(part[1] for part in parts)])
    known, numbers = np.unique(hashes, return_inverse=True)
    # a run that stands twice in a question counts once
    owners, numbers = np.unique(np.stack([owners, numbers.astype(np.int64)]), axis=1)
    met = np.zeros(len(known), dtype=bool)
    by_record = np.zeros(len(train), dtype=np.int64)
    for found, places in _runs(train, vocabulary) if len(known) else ():
        at = np.minimum(np.searchsorted(known, found), len(known) - 1)
        hit = known[at] == found
        met[at[hit]] = True
        by_record += np.bincount(places[hit], minlength=len(train))
    count = len(test)
    return np.bincount(owners, minlength=count), np.bincount(owners[met[numbers]], minlength=count), by_record


def _runs(
    records: Sequence[Record], vocabulary: Mapping[str, int]
) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.int64]]]:
    """Of a few records at a time, the hash and the owner of each run of words of the vocabulary, shape (runs,)."""
    number = vocabulary.get
    for start in range(0, len(records), _CHUNK):
        words: list[int] = []
        ends: list[int] = []
        for record in records[start : start + _CHUNK]:
            for text in texts_of(record):
                words += [number(word, 0) for word in _WORD.findall(text.casefold())]
                words.append(0)  # no word: no run goes on into the next text
            ends.append(len(words))
        values = np.array(words, dtype=np.uint64)
        if len(values) < RUN_WORDS:
            continue
        windows = len(values) - RUN_WORDS + 1
        unknown = np.concatenate([[0], np.cumsum(values == 0)])
        places = np.flatnonzero(unknown[RUN_WORDS:] == unknown[:windows])
        total = np.zeros(len(places), dtype=np.uint64)
        for offset in range(RUN_WORDS):  # arrays wrap around silently; an odd factor loses nothing
            total = (total ^ (total >> np.uint64(29))) * np.uint64(0x9E3779B97F4A7C15) + values[
                places + offset
            ]
        yield total, start + np.searchsorted(ends, places, "right")


def _chunks(examples: Sequence[Encoded]) -> Iterable[Sequence[Encoded]]:
    return (examples[start : start + _CHUNK] for start in range(0, len(examples), _CHUNK))
