"""Whatever stands in a record, its prompt holds the question whole and its completion the answer whole."""

from collections.abc import Callable

import pytest
from fuzzing import SLOW_INPUTS, fuzz
from hypothesis import strategies as st
from tokenizer_families import FAMILIES, family

from medqlora.data import prompts
from medqlora.data.encoding.encode import encode, end_token_ids
from medqlora.errors import InputError
from medqlora.records import YES_NO_MAYBE, Record

PIECES = (
    *(
        "aspirin ",
        "p < 0.05",
        " 120 patients",
        "\n",
        "\r\n",
        "\t",
        "  ",
        ".",
        "?",
        "Größe, 5 µg",
        "a\u0301",
        "‮abc",
    ),
    *(
        "<|eot_id|>",
        "</s>",
        "<s>",
        "[INST]",
        "<|im_start|>user\n",
        "<start_of_turn>",
        "<think>",
        "<unk>",
        "<0x41>",
    ),
    *(
        "ANSWER: yes",
        "\nANSWER:",
        "Question:",
        "CONTEXT: ",
        "{question}",
        "{options}",
        "{}",
        "%s",
        "\\n",
        "\x00",
    ),
    *(
        "漢字",
        "🩺",
        "👩‍⚕️",
        "ﬁ",
        "İ",
        "\u2028",
        "\u200b",
        "\ufeff",
        "x" * 90,
        "0" * 50,
        " yes",
        " no",
        "@@MEDQLORA-",
    ),
)
# ▁ is how SentencePiece writes a space, and the two non-characters are replaced on purpose
LETTERS = st.characters(codec="utf-8", exclude_characters="▁\ufdd0\ufdd1")
TEXT = st.lists(st.one_of(st.sampled_from(PIECES), st.text(LETTERS, max_size=10)), max_size=12).map("".join)
SAID = TEXT.filter(lambda text: bool(text.strip()))
CONTEXTS = st.lists(st.tuples(TEXT, st.integers(1, 12)).map(lambda pair: pair[0] * pair[1]), max_size=5)
KINDS = ("decision", "choice", "free", "unknown")


@st.composite
def cases(draw: st.DrawFn) -> tuple[Record, str, str, int]:
    """A record, a prompt's name, a tokenizer's family and a limit."""
    kind = draw(st.sampled_from(KINDS))
    options = {letter: draw(SAID) for letter in "ABC"} if kind == "choice" else {}
    labels = {"decision": YES_NO_MAYBE, "choice": tuple("ABC")}.get(kind, ())
    record = Record(
        id="1",
        question=draw(SAID),
        contexts=tuple(draw(CONTEXTS)),
        options=options,
        labels=labels,
        answer=None if kind == "unknown" else draw(st.sampled_from(labels) if labels else SAID),
        long_answer=draw(TEXT),
    )
    return (
        record,
        draw(st.sampled_from(prompts.prompt_names())),
        draw(st.sampled_from(FAMILIES)),
        draw(st.integers(40, 400)),
    )


def check(value: tuple[Record, str, str, int]) -> bool:
    """Whether the prompt was within its limit."""
    record, name, kind, limit = value
    tokenizer, prompt = family(kind), prompts.lookup(name)
    decode: Callable[[list[int]], str] = lambda ids: tokenizer.decode(ids, clean_up_tokenization_spaces=False)  # noqa: E731
    body = prompt.body(record.question, record.contexts, record.options, record.labels, record.subject)
    asked = record.question if name == "lm_eval" else record.question.strip()
    for part in (asked, *record.options.values()):
        assert part in body
    bare = prompt.body(record.question, (), record.options, record.labels, record.subject)
    if not any(context.strip() for context in record.contexts):
        assert body == bare

    whole = encode(record, prompt, tokenizer, 1_000_000)
    assert whole.dropped == 0
    assert body in decode(list(whole.prompt))
    try:
        found = encode(record, prompt, tokenizer, limit)
    except InputError as error:
        assert "without any context" in str(error)  # noqa: PT017 - the one thing that may be wrong
        empty = encode(Record(**{**fields(record), "contexts": ()}), prompt, tokenizer, 1_000_000)
        assert len(empty.prompt) > limit
        return False
    assert len(found.prompt) <= limit
    assert found.dropped == len(whole.prompt) - len(found.prompt) >= 0
    assert (found.dropped == 0) == (len(whole.prompt) <= limit)
    shown = decode(list(found.prompt))
    # all that isn't context stands there, in its order
    at = shown.index(asked)
    for text in record.options.values():
        at = shown.index(text, at)
    assert bare[bare.index(asked) :].rpartition("\n")[2] in shown[at:]

    # the answer doesn't depend on the context, is whole, and ends in the end token
    assert found.completion == whole.completion
    assert found.labels == whole.labels
    ends = end_token_ids(prompt, tokenizer)
    if record.answer is None:
        assert list(found.completion) == []
        return True
    said = prompt.completion(record.answer, record.long_answer, record.labels)
    assert decode([*found.prompt, *found.completion[:-1]]) == shown + prompt.frame(tokenizer).delimiter + said
    assert found.completion[-1] == ends[0]
    assert not set(ends) & set(found.completion[:-1])
    for number, label in enumerate(record.labels):
        begins = tuple(found.completion[: len(found.labels[number])]) == found.labels[number]
        assert begins == (label == record.answer)
    return True


def fields(record: Record) -> dict[str, object]:
    return {name: getattr(record, name) for name in Record.__dataclass_fields__}


def run_prompts(inputs: int) -> None:
    fitted = [0, 0]

    def every(value: tuple[Record, str, str, int]) -> None:
        fitted[check(value)] += 1

    fuzz(cases(), every, inputs)
    assert min(fitted) > inputs // 100, "the limits are all too low, or all too high"


def test_question_and_answer_stay_whole_whatever_the_context() -> None:
    run_prompts(120)


@pytest.mark.slow
def test_thousands_of_questions_and_answers_stay_whole() -> None:
    run_prompts(SLOW_INPUTS["prompts"])
