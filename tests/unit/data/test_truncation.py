"""A prompt over the limit loses context alone, never within a word, and never its question or its answer."""

import pytest
from example_records import LABELS, RECORD, decoded, with_
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizer_families import FAMILIES, LLAMA3_CHAT, family

from medqlora.data import prompts
from medqlora.data.encoding.encode import encode, encode_all
from medqlora.data.sources.pubmedqa import PubMedQA
from medqlora.errors import InputError

NAMES = prompts.prompt_names()
WORDS = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Cn")) | st.sampled_from(" \n.,"),
    max_size=120,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    contexts=st.lists(WORDS, max_size=5),
    limit=st.integers(90, 400),
    name=st.sampled_from(["medical", "chat"]),
    kind=st.sampled_from(FAMILIES),
)
def test_prompts_never_exceed_the_limit_and_keep_everything_but_context(contexts, limit, name, kind):
    tokenizer, prompt = family(kind), prompts.lookup(name)
    record = with_(RECORD, contexts=tuple(contexts))
    try:
        found = encode(record, prompt, tokenizer, limit)
        whole = encode(record, prompt, tokenizer, 100_000)
    except InputError as error:
        assert "without any context" in str(error)  # noqa: PT017 - only small limits may fail
        return
    assert len(found.prompt) <= limit
    assert (found.dropped == 0) == (len(whole.prompt) <= limit)
    assert found.dropped == len(whole.prompt) - len(found.prompt)
    assert found.completion == whole.completion
    shown = decoded(tokenizer, found.prompt)
    empty = prompt.body(record.question, (), {}, record.labels)
    for part in (record.question, empty[empty.index(record.question) + len(record.question) :]):
        assert part in shown


def test_the_cut_does_not_depend_on_the_answer():
    record = with_(RECORD, contexts=("The treatment group improved. " * 30,))
    short = with_(record, answer="no", long_answer="")
    long = with_(record, answer="maybe", long_answer="It may be so. " * 100)
    for name in NAMES:
        prompt = prompts.lookup(name)
        found = [encode(r, prompt, family("llama3"), 120) for r in (short, long, with_(record, answer=None))]
        assert found[0].dropped > 0
        assert found[0].prompt == found[1].prompt == found[2].prompt


def test_a_short_section_at_the_end_survives_a_long_one():
    results = "The control group did not improve."
    record = with_(RECORD, contexts=("We enrolled patients with hypertension. " * 40, results))
    shown = decoded(family("llama3"), encode(record, prompts.lookup("medical"), family("llama3"), 150).prompt)
    assert shown.endswith(f" {results}\nANSWER:")


def test_one_section_is_cut_from_the_right_at_the_end_of_a_word():
    context = " ".join(f"word{number}" for number in range(200))
    record = with_(RECORD, contexts=(context,))
    found = encode(record, prompts.lookup("medical"), family("llama3"), 200)
    kept = decoded(family("llama3"), found.prompt).split("CONTEXT: ")[1].removesuffix("\nANSWER:")
    assert context.startswith(f"{kept} ")
    assert 190 <= len(found.prompt) <= 200


@pytest.mark.parametrize("name", NAMES)
def test_no_cut_ends_within_a_word_or_a_figure(any_tokenizer, name):
    prompt = prompts.lookup(name)
    context = " ".join(f"p = 0.{number}12 and \nmyocarditis {number}1203" for number in range(3, 20))
    record = with_(RECORD, contexts=(context,))
    whole = encode(record, prompt, any_tokenizer, 5000)
    least = len(encode(with_(RECORD, contexts=()), prompt, any_tokenizer, 5000).prompt)
    words = set(decoded(any_tokenizer, whole.prompt).split())
    for limit in range(least + 10, len(whole.prompt), 7):
        found = encode(record, prompt, any_tokenizer, limit)
        assert set(decoded(any_tokenizer, found.prompt).split()) <= words


@pytest.mark.parametrize("limit", [80, 100, 133, 5000])
def test_a_prompt_of_exactly_the_limit_stays_as_it_is(any_tokenizer, limit):
    record = with_(
        RECORD, contexts=("The treatment group improved " * 9 + "greatly", "The control group did not")
    )
    found = encode(record, prompts.lookup("medical"), any_tokenizer, limit)
    assert encode(record, prompts.lookup("medical"), any_tokenizer, len(found.prompt)) == found


def test_a_question_that_does_not_fit_by_itself_is_refused():
    record = with_(RECORD, where="data.jsonl:17")
    with pytest.raises(
        InputError, match=r"data\.jsonl:17 \(id 1\): .* --data\.max_prompt_tokens is 5: raise it"
    ):
        encode(record, prompts.lookup("medical"), family("llama3"), 5)
    with pytest.raises(InputError, match=r"--data\.max_prompt_tokens: 0"):
        encode(record, prompts.lookup("medical"), family("llama3"), 0)


@pytest.mark.parametrize("name", NAMES)
def test_pubmedqa_fits_at_a_tight_limit(pubmedqa_file, llama3_tokenizer, name, monkeypatch):
    tokenizer, prompt = llama3_tokenizer, prompts.lookup(name)
    if name == "chat":
        monkeypatch.setattr(tokenizer, "chat_template", LLAMA3_CHAT)
    records = [record for part in PubMedQA(str(pubmedqa_file)).read() for record in part[::4]]
    found = encode_all(records, prompt, tokenizer, 256, progress=False, cached=False)
    for record, item in zip(records, found, strict=True):
        assert len(item.prompt) <= 256
        shown = decoded(tokenizer, item.prompt)
        assert record.question in shown
        tail = prompt.body("?", (), {}, record.labels).partition("?")[2] + prompt.frame(tokenizer).after
        assert shown.endswith(tail)
        assert tuple(item.completion[:1]) == item.labels[LABELS.index(record.answer)]
    cut = [item for item in found if item.dropped]
    assert len(cut) > 125
    assert sum(256 - len(item.prompt) for item in cut) / len(cut) < 4  # little room is left unused
