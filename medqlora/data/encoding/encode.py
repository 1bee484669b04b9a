"""A record to token ids: the prompt, the completion to learn, and the labels to score."""

import hashlib
import sys
from array import array
from collections.abc import Sequence
from contextlib import nullcontext
from functools import cache, cached_property
from pathlib import Path

from medqlora.data.checks import at_with_id
from medqlora.data.encoding.encoded_cache import load, save, slot
from medqlora.data.encoding.image_slots import ImageReader, expanded, extra_tokens
from medqlora.data.encoding.labels import shared_prefix
from medqlora.data.encoding.tokens import TextTokenizer, text_tokenizer
from medqlora.data.prompts.prompt import OPTION, Prompt
from medqlora.data.prompts.rationale_first import RationaleFirst
from medqlora.errors import InputError
from medqlora.records import Encoded, Record
from medqlora.utils.locks import one_at_a_time
from medqlora.utils.progress import phase
from medqlora.utils.types import Tokenizer

MAX_OPTION = "--data.max_prompt_tokens"

_CHUNK = 256  # records that are tokenized together, and between two updates of the progress bar
_LONGEST_WORD = 40  # characters; a cut moves back to the end of a word, but not through text without spaces


def encode(
    record: Record,
    prompt: Prompt,
    tokenizer: Tokenizer,
    max_prompt_tokens: int,
    images: ImageReader | None = None,
) -> Encoded:
    """One record as token ids.

    The prompt begins with the tokenizer's own prefix (BOS), once; a chat template decides that itself. Where the
    prompt, without the answer, exceeds `max_prompt_tokens`, only the context is shortened. Every section then keeps
    at most c tokens, for the largest c that fits, so short sections at the end (the results) stay complete. The
    completion ends with the end token; it is empty where the answer is unknown.

    Args:
        record: the record; only its question, contexts, options, labels and subject reach the prompt.
        prompt: see `medqlora.data.lookup`.
        tokenizer: a fast tokenizer of transformers.
        max_prompt_tokens: the limit of the prompt, in tokens, its prefix and its images' tokens included.
        images: says how many tokens an image takes; None for a base that reads text alone, and then the record's
            images are left out.

    Returns:
        The ids as `array('i')`; `dropped` is the number of tokens by which the prompt was shortened.

    Raises:
        InputError: the question does not fit even without context, the answer is none of the labels, or
            prompt and tokenizer do not fit (a label has no token ids of its own after the prompt).
    """
    return _Encoder(prompt, tokenizer, max_prompt_tokens, images).encode([record])[0]


def encode_all(
    records: Sequence[Record],
    prompt: Prompt,
    tokenizer: Tokenizer,
    max_prompt_tokens: int,
    *,
    images: ImageReader | None = None,
    progress: bool = True,
    cached: bool = True,
) -> list[Encoded]:
    """`encode` of many records, with a progress bar; the cache folder keeps the result for the next run.

    Args:
        records: in the order of the result.
        prompt: as in `encode`.
        tokenizer: as in `encode`.
        max_prompt_tokens: as in `encode`.
        images: as in `encode`.
        progress: whether to show the bar; none is shown where the cache has the result.
        cached: whether to read and write the cache.

    Raises:
        InputError: as in `encode`.
    """
    if images is not None and not any(record.images for record in records):
        images = None  # the same result, in the same place of the cache
    encoder = _Encoder(prompt, tokenizer, max_prompt_tokens, images)
    path = slot(records, encoder.identity) if cached and records else None
    if path is None:
        return _encode_all(encoder, records, progress)
    encoded = load(path, records)
    if encoded is None:
        with one_at_a_time(path, f"tokenizing these {len(records)} records"):
            encoded = load(path, records)  # another process may have written it meanwhile
            if encoded is None:
                encoded = _encode_all(encoder, records, progress)
                save(path, encoded)
    return encoded


def _encode_all(encoder: "_Encoder", records: Sequence[Record], progress: bool) -> list[Encoded]:
    result: list[Encoded] = []
    with phase("Tokenizing", len(records), "records") if progress else nullcontext() as bar:
        for start in range(0, len(records), _CHUNK):
            chunk = records[start : start + _CHUNK]
            result += encoder.encode(chunk)
            if bar is not None:
                bar.advance(len(chunk))
    return result


def end_token_ids(prompt: Prompt, tokenizer: Tokenizer) -> tuple[int, ...]:
    """The tokens at which generation stops: the one that ends a completion, then end-of-sequence.

    Raises:
        InputError: the prompt does not work with this tokenizer.
    """
    text = text_tokenizer(tokenizer)
    turn = text.control_ids(prompt.frame(tokenizer).end)[:1]
    return tuple(dict.fromkeys([*turn, text.eos]))


class _Encoder:
    """A prompt with a tokenizer and a limit; `identity` holds what decides its result, for the cache."""

    def __init__(
        self,
        prompt: Prompt,
        tokenizer: Tokenizer,
        max_prompt_tokens: int,
        images: ImageReader | None = None,
    ) -> None:
        if max_prompt_tokens < 1:
            raise InputError(f"{MAX_OPTION}: {max_prompt_tokens} leaves no room for a prompt: give 1 or more")
        self._prompt = prompt
        self._text: TextTokenizer = text_tokenizer(tokenizer)
        self._images = images
        self._slot = "" if images is None else self._text.template(images.placeholder)
        self._limit = max_prompt_tokens
        frame = prompt.frame(tokenizer)
        self._before = self._text.template(frame.before)
        self._after = self._text.template(frame.after)
        self._delimiter = frame.delimiter
        self._lead = f" {prompt.lead}" if prompt.lead else ""
        self._prefix = [] if frame.whole else list(self._text.prefix)
        end = self._text.until_control(
            frame.end
        )  # the rest of a template's end does not belong to the answer
        self._end = "" if end is None else self._text.template(end)
        self._end_ids = [self._text.eos] if end is None else []
        self.identity = [
            prompt.sha256(tokenizer),
            [_code(kind.__module__) for kind in _classes(prompt)],
            self._text.digest,
            list(frame),
            max_prompt_tokens,
        ]
        if images is not None:
            self.identity.append(["images", images.identity])
        self._labels = cache(self._label_ids)

    def encode(self, records: Sequence[Record]) -> list[Encoded]:
        """`encode` of a few records, tokenized together."""
        fitted = self._fit_all(records)
        joints = [
            prompt + self._completion(record) for record, (prompt, _, _) in zip(records, fitted, strict=True)
        ]
        result = []
        for record, (text, ids, dropped), joint in zip(
            records, fitted, self._text.batch(joints), strict=True
        ):
            labels = self._labels(record.labels)
            lead = self._lead_ids if record.labels else ()
            completion: list[int] = []
            label_at = 0
            if record.answer is not None:
                completion = self._after_prompt(ids, self._prefixed(joint), record) + self._end_ids
                if lead:
                    label_at = self._label_at(record, text, ids)
                self._check_gold(record, completion[label_at:], labels)
            ids, slots = expanded(ids, record, self._images)
            encoded = Encoded(record.id, array("i", ids), array("i", completion), labels, dropped, slots)
            result.append(encoded._replace(label_at=label_at, lead=lead) if lead else encoded)
        return result

    def _label_at(self, record: Record, text: str, prompt: list[int]) -> int:
        """Index of the decision in a completion whose rationale comes first."""
        assert isinstance(self._prompt, RationaleFirst)
        before = self._delimiter + self._text.text(self._prompt.before_decision(record.long_answer))
        return len(self._after_prompt(prompt, self._prefixed(self._text.ids(text + before)), record))

    @cached_property
    def _lead_ids(self) -> tuple[int, ...]:
        """The tokens of the prompt's `lead`, which stand between rationale and decision."""
        if not self._prompt.lead:
            return ()
        ids = self._text.ids("It was so." + self._lead)
        return tuple(ids[len(self._text.ids("It was so.")) :])

    def _body(self, record: Record, contexts: Sequence[str]) -> str:
        # the only path from a record to a prompt: five fields that do not hold the answer
        body = self._prompt.body(record.question, contexts, record.options, record.labels, record.subject)
        return self._before + self._slot * len(record.images) + self._text.text(body) + self._after

    def _completion(self, record: Record) -> str:
        if record.answer is None:
            return ""
        if record.labels and record.answer not in record.labels:
            raise InputError(
                f"{at_with_id(record)}: the answer {record.answer!r} is none of {', '.join(record.labels)}: correct it"
            )
        answer = self._prompt.completion(record.answer, record.long_answer, record.labels)
        return self._delimiter + self._text.text(answer) + self._end

    def _prefixed(self, ids: list[int]) -> list[int]:
        prefix = self._prefix
        return ids if ids[: len(prefix)] == prefix else prefix + ids

    def _fit_all(self, records: Sequence[Record]) -> list[tuple[str, list[int], int]]:
        texts = [self._body(record, record.contexts) for record in records]
        fitted = []
        for record, text, raw in zip(records, texts, self._text.batch(texts), strict=True):
            ids = self._prefixed(raw)
            if len(ids) <= self._room(record):
                fitted.append((text, ids, 0))
            else:
                shorter, shorter_ids = self._shorten(record)
                fitted.append((shorter, shorter_ids, len(ids) - len(shorter_ids)))
        return fitted

    def _room(self, record: Record) -> int:
        """The limit of the prompt's tokens before its images are expanded."""
        return self._limit - extra_tokens(record, self._images)

    def _shorten(self, record: Record) -> tuple[str, list[int]]:
        """The prompt with the most context that fits, each section cut to the same number of tokens.

        The text is cut and tokenized again, rather than its ids cut. So the boundaries are those that the tokenizer
        writes, and no piece of the template is lost in a token that began in the context.
        """
        sections = [self._text.text(context) for context in record.contexts]
        ends = [self._text.ends(section) for section in sections]

        def at(cap: int) -> tuple[str, list[int]]:
            kept = [_cut(section, end, cap) for section, end in zip(sections, ends, strict=True)]
            text = self._body(record, [section for section in kept if section])
            return text, self._prefixed(self._text.ids(text))

        best, limit = at(0), self._room(record)
        if len(best[1]) > limit:
            extra = self._limit - limit
            what = f"{extra + len(record.images)} of them its images', " if extra else ""
            raise InputError(
                f"{at_with_id(record)}: the question takes {len(best[1]) + extra} tokens without any context, {what}"
                f"and {MAX_OPTION} is {self._limit}: raise it, or shorten the question"
            )
        low, high = 0, max(map(len, ends), default=0)  # the whole context is known not to fit
        while high - low > 1:
            cap = (low + high) // 2
            tried = at(cap)
            if len(tried[1]) <= limit:
                low, best = cap, tried
            else:
                high = cap
        return best

    def _after_prompt(self, prompt: list[int], joint: list[int], record: Record | None) -> list[int]:
        """The ids that follow `prompt` in `joint`: the model is scored at that boundary, so no token may cross it."""
        if joint[: len(prompt)] != prompt or len(joint) == len(prompt):
            at = f"{at_with_id(record)}: " if record else ""
            raise InputError(
                f"{at}{OPTION}: with this tokenizer the answer's beginning merges into the end of the prompt "
                f"{self._prompt.name!r}: use another prompt"
            )
        return joint[len(prompt) :]

    def _label_ids(self, labels: tuple[str, ...]) -> tuple[tuple[int, ...], ...]:
        text = (
            self._before + self._text.text(self._prompt.body("?", (), {}, labels)) + self._after + self._lead
        )
        between = " " if self._lead else self._delimiter
        prompt = self._prefixed(self._text.ids(text))
        ids = []
        for label in labels:
            joint = self._text.ids(text + between + self._text.text(self._prompt.label(label)))
            ids.append(tuple(self._after_prompt(prompt, self._prefixed(joint), None)))
        shared = shared_prefix(ids)
        if shared is not None:
            shorter, longer = shared
            raise InputError(
                f"{OPTION}: after the prompt {self._prompt.name!r} this tokenizer writes the label "
                f"{labels[shorter]!r} as the beginning of {labels[longer]!r}, so they can't be told "
                "apart: rename one (--data.source.labels) or use another prompt"
            )
        return tuple(ids)

    def _check_gold(self, record: Record, completion: list[int], labels: tuple[tuple[int, ...], ...]) -> None:
        if not record.labels:
            return
        gold = labels[record.labels.index(str(record.answer))]
        if tuple(completion[: len(gold)]) != gold:
            raise InputError(
                f"{at_with_id(record)}: {OPTION}: with this tokenizer the answer {record.answer!r} does not begin with "
                f"the tokens that are scored for it after the prompt {self._prompt.name!r}: use another prompt"
            )


def _classes(prompt: Prompt) -> list[type[Prompt]]:
    """The classes that make a prompt's text; of a prompt around another one, those of both."""
    own = [kind for kind in type(prompt).__mro__ if issubclass(kind, Prompt)]
    return [*own, *_classes(prompt.inner)] if isinstance(prompt, RationaleFirst) else own


@cache
def _code(module: str) -> str:
    """The SHA-256 of a module's file, in hex; "" where it has none.

    A prompt may come from anywhere (`Source.prompts`, a class path), and its `template` need not show everything that
    its `body` does."""
    try:
        return hashlib.sha256(Path(str(sys.modules[module].__file__)).read_bytes()).hexdigest()
    except (AttributeError, KeyError, OSError):
        return ""


def _cut(text: str, ends: Sequence[int], cap: int) -> str:
    """The first `cap` tokens of a text, back to the end of a word: half a figure ("0.0" of "0.05") would be false.

    Args:
        text: one section.
        ends: the end of each of its tokens, in characters.
        cap: the number of tokens to keep.
    """
    if cap >= len(ends):
        return text
    end = ends[cap - 1] if cap else 0
    if 0 < end < len(text) and not text[end].isspace() and not text[end - 1].isspace():
        words = text[:end].rsplit(maxsplit=1)
        if len(words[-1]) <= _LONGEST_WORD:
            end -= len(words[-1])
    return text[:end].rstrip()
