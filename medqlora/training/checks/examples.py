"""Checks of the training examples before the first step: complete answers, distinct labels, no test question.

Other rooms check the rest: `data.encode`, that a question fits without its context and that prompt and tokenizer go
together; each source (`data.checks`, `data.benchmark.kept_apart`), that no test question is trained on under another
id. Sources compare complete questions; this file also finds an abstract within a longer text, or with a word changed,
by the runs of 13 words that `test` looks for. A user's own source may check nothing.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cache

import numpy as np

from medqlora.data import BioASQ, MedicalMMLU, MedMCQA, MedQA, Prompt, Source, encode_all
from medqlora.data.checks import at_with_id
from medqlora.data.encoding.image_slots import ImageReader
from medqlora.data.encoding.labels import shared_prefix
from medqlora.data.images.shared import shared_images
from medqlora.data.stage_data import StageData
from medqlora.errors import InputError
from medqlora.evaluation.contamination import FLAGGED_SHARE, RUN_WORDS, shared_runs
from medqlora.records import Encoded, Record
from medqlora.utils.types import Tokenizer

#: exam questions recur in these official splits: reported only, since the user can't correct them
_OFFICIAL = (BioASQ, MedMCQA, MedQA, MedicalMMLU)
#: examples decoded, or searched, at a time
_CHUNK = 2048
_STALE = "empty the cache's folder 'encoded' ($MEDQLORA_CACHE, else ~/.cache/medqlora) and start again"


def check_examples(data: StageData, tokenizer: Tokenizer) -> list[str]:
    """Checks every training example of a fit, and that no test question is among them.

    Args:
        data: with its training set.
        tokenizer: of the base model.

    Returns:
        Lines to tell the user; empty where there is nothing to report.

    Raises:
        InputError: as `check_answers` and `check_apart`.
    """
    assert data.prompt is not None
    for examples, prompt in _with_prompts(data, data.prompt):
        listed = data.learned([data.records[example.id] for example in examples])
        learned = {record.id: record for record in listed}
        check_answers(examples, learned, prompt, tokenizer, data.end_token_ids, data.images)
    trained = [data.records[example.id] for example in data.train]
    return check_apart(trained, data.held_out, data.source)


def _with_prompts(data: StageData, prompt: Prompt) -> list[tuple[Sequence[Encoded], Prompt]]:
    """The training examples with the prompt that made them: a stage's source may have one of its own."""
    if not data.training_stages:
        return [(data.train, prompt)]
    sources = [stage.source or data.source for stage in data.training_stages]
    return [
        (part.examples, source.prompt(data.prompt_name))
        for part, source in zip(data.parts, sources, strict=True)
    ]


def check_answers(
    examples: Sequence[Encoded],
    records: Mapping[str, Record],
    prompt: Prompt,
    tokenizer: Tokenizer,
    end_token_ids: Sequence[int],
    images: ImageReader | None = None,
) -> None:
    """Checks that every example holds its complete answer, and labels that differ after its prompt.

    Decodes the answer and compares it with the prompt's text, without the white space around it. Some tokenizers
    change a text (lower case, other forms of a character): where the texts differ, the answer is tokenized again
    without a length limit, and has to have the same tokens.

    Args:
        examples: the training set.
        records: id → record as it is learned, of these examples at least.
        prompt: template of the examples.
        tokenizer: has encoded the examples.
        end_token_ids: tokens that end an answer.
        images: has counted the images' tokens.

    Raises:
        InputError: an example is wrong; names it.
    """
    labels_fault = cache(_labels_fault)
    for chunk in _chunks(examples):
        texts = tokenizer.backend_tokenizer.decode_batch(
            [list(example.completion[:-1]) for example in chunk], skip_special_tokens=False
        )
        doubtful = []
        for example, text in zip(chunk, texts, strict=True):
            record = records[example.id]
            fault = (
                _completion_fault(example, text, end_token_ids)
                or labels_fault(example.labels)
                or _gold_fault(example, record)
            )
            if fault is not None:
                raise InputError(f"{at_with_id(record)}: {fault}")
            wanted = prompt.completion(record.answer or "", record.long_answer, record.labels)
            if text.strip() != wanted.strip():
                doubtful.append(example)
        again = encode_all(
            [records[example.id] for example in doubtful],
            prompt,
            tokenizer,
            sys.maxsize,
            images=images,
            progress=False,
            cached=False,
        )
        for example, complete in zip(doubtful, again, strict=True):
            if list(example.completion) != list(complete.completion):
                raise InputError(
                    f"{at_with_id(records[example.id])}: the answer's {len(example.completion)} tokens are not the "
                    f"{len(complete.completion)} that it has in full: {_STALE}"
                )


def _gold_fault(example: Encoded, record: Record) -> str | None:
    """What is wrong with the label's tokens in a completion."""
    if not record.labels or record.answer not in record.labels or not example.labels:
        return None
    gold = example.labels[record.labels.index(record.answer)]
    if tuple(example.completion[example.label_at : example.label_at + len(gold)]) == gold:
        return None
    return f"the answer doesn't begin with the tokens of its label {record.answer!r}: {_STALE}"


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
    """Checks that no test question is trained on: neither its id, nor a tenth of its runs of 13 words.

    Fewer shared runs are innocent (methods sections, disclaimers) and are reported. Texts below 13 words are left to
    the sources, which compare complete questions: a short exam question may recur with other options.

    Args:
        train: training records.
        test: test records.
        source: of both.

    Returns:
        A line where images are shared, and one where runs are.

    Raises:
        InputError: a test question is trained on; names both records. Benchmarks with official splits get a line
            instead.
    """
    held_out = {record.id: record for record in test}
    for record in train:
        if record.id in held_out:
            raise InputError(
                f"{at_with_id(record)}: the id is also in the test set, at {at_with_id(held_out[record.id])}: "
                "remove it from the training set, or the test score means nothing"
            )
    lines = _shared_images(train, test)
    runs, shared, _ = shared_runs(train, test)
    if not shared.any():
        return lines
    shares = shared / np.maximum(1, runs)
    worst = int(shares.argmax())
    flagged = int((shares >= FLAGGED_SHARE).sum())
    if flagged and not isinstance(source, _OFFICIAL):
        twin = int(shared_runs(train, [test[worst]]).by_training_record.argmax())
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
    return [*lines, f"{line}; {flagged:,} share {FLAGGED_SHARE:.0%} or more" if flagged else line]


def _shared_images(train: Sequence[Record], test: Sequence[Record]) -> list[str]:
    """A line on test questions whose image is in the training set; the same question on it is refused by `content`."""
    pairs = shared_images(train, test)
    if not pairs:
        return []
    same = sum(pair.exact for pair in pairs)
    first = pairs[0]
    return [
        f"Warning: the images of {len(pairs):,} of {len(test):,} test questions are in the training set too "
        f"({same:,} as the same file, {len(pairs) - same:,} nearly), the first that of {at_with_id(first.test)} at "
        f"{at_with_id(first.train)}: the test score is too good for new images"
    ]


def _chunks(examples: Sequence[Encoded]) -> Iterable[Sequence[Encoded]]:
    return (examples[start : start + _CHUNK] for start in range(0, len(examples), _CHUNK))
