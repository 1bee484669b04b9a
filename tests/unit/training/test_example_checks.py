"""What would be learned wrongly is found before the first step, and the example named."""

import random
from array import array
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from harness import questions, write_rows
from tokenizer_families import FAMILIES, family

from medqlora.data import JSONLines, MedMCQA, PubMedQA, SyntheticTrials, encode_all, end_token_ids, lookup
from medqlora.data.prompts import prompt_names as names
from medqlora.datamodule import PubMedQADataModule
from medqlora.errors import InputError
from medqlora.evaluation import TrainingTrace, overlap
from medqlora.evaluation.contamination import shared_runs
from medqlora.records import Encoded, Record
from medqlora.training.checks.examples import (
    check_answers,
    check_apart,
    check_examples,
)

ANSWERS = ("yes", "no", "maybe")
RECORDS = [
    Record(
        f"q{number}",
        f"Does drug {number} reduce the risk of atrial fibrillation?",
        (f"We enrolled {number} patients with hypertension. " * (1 + number), "The group improved."),
        answer=ANSWERS[number % 3],
        long_answer="Statins  help, and it may be so\n(p < 0.05) — naïve </s>?" if number % 2 else "",
        where=f"train.jsonl:{number + 1}",
    )
    for number in range(9)
] + [Record("free", "What is it?", labels=(), answer="A drug, maybe.", where="train.jsonl:10")]
BY_ID = {record.id: record for record in RECORDS}
SOURCE = SyntheticTrials()


def encoded(tokenizer: Any, prompt: str = "medical", limit: int = 10_000) -> list[Encoded]:
    return encode_all(RECORDS, lookup(prompt), tokenizer, limit, progress=False, cached=False)


def check(
    examples: list[Encoded],
    tokenizer: Any,
    prompt: str = "medical",
    records: dict[str, Record] = BY_ID,
) -> None:
    way = lookup(prompt)
    check_answers(examples, records, way, tokenizer, end_token_ids(way, tokenizer))


# --- answers and labels -----------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", names())
def test_whole_examples_pass_for_every_tokenizer_and_prompt_shortened_or_not(
    any_tokenizer: Any, prompt: str
) -> None:
    check(encoded(any_tokenizer, prompt), any_tokenizer, prompt)
    longest = max(len(one.prompt) for one in encoded(any_tokenizer, prompt))
    short = encoded(any_tokenizer, prompt, longest - 20)
    assert any(one.dropped for one in short)
    check(short, any_tokenizer, prompt)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("place", [0, 3, -2])
def test_an_answer_that_lost_a_token_is_named(name: str, place: int) -> None:
    tokenizer = family(name)
    examples = encoded(tokenizer)
    tokens = list(examples[1].completion)
    del tokens[place]
    examples[1] = examples[1]._replace(completion=array("i", tokens))
    with pytest.raises(InputError, match=r"^train\.jsonl:2 \(id q1\): the answer.*empty the cache"):
        check(examples, tokenizer)


def test_an_answer_without_its_end_token_is_named() -> None:
    tokenizer = family("llama3")
    examples = encoded(tokenizer)
    examples[4] = examples[4]._replace(completion=examples[4].completion[:-1])
    with pytest.raises(InputError, match=r"^train\.jsonl:5 \(id q4\): the answer's last token is \d+, and "):
        check(examples, tokenizer)


def test_an_example_with_nothing_to_learn_is_named() -> None:
    tokenizer = family("qwen2")
    record = replace(RECORDS[2], answer=None)
    examples = encode_all([record], lookup("medical"), tokenizer, 999, progress=False, cached=False)
    with pytest.raises(InputError, match=r"^train\.jsonl:3 \(id q2\): the example has no tokens to learn"):
        check(examples, tokenizer, records={record.id: record})


@pytest.mark.parametrize("answer", ["", " \n"])
def test_an_empty_answer_is_named_although_its_end_token_could_be_learned(answer: str) -> None:
    tokenizer = family("mistral")
    record = replace(RECORDS[-1], answer=answer)
    examples = encode_all([record], lookup("medical"), tokenizer, 999, progress=False, cached=False)
    assert len(examples[0].completion) > 0
    with pytest.raises(InputError, match=r"^train\.jsonl:10 \(id free\): the answer is empty"):
        check(examples, tokenizer, records={record.id: record})


def test_the_answer_of_another_example_is_named() -> None:
    tokenizer = family("gemma")
    examples = encoded(tokenizer)
    examples[0] = examples[0]._replace(completion=examples[6].completion[:-1] + examples[1].completion)
    with pytest.raises(InputError, match=r"\(id q0\): the answer's \d+ tokens are not the \d+ that it has"):
        check(examples, tokenizer)
    examples[0] = examples[0]._replace(completion=examples[2].completion)
    with pytest.raises(
        InputError, match=r"\(id q0\): the answer doesn't begin with the tokens of its label 'yes'"
    ):
        check(examples, tokenizer)


def test_a_tokenizer_that_does_not_give_back_what_it_was_given_is_no_fault_and_hides_none() -> None:
    from tokenizers import normalizers

    tokenizer = _copy(family("llama3"))
    tokenizer.backend_tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()]
    )
    examples = encoded(tokenizer)
    assert "statins" in tokenizer.decode(list(examples[1].completion))
    check(examples, tokenizer)
    examples[1] = examples[1]._replace(completion=examples[1].completion[:3] + examples[1].completion[4:])
    with pytest.raises(InputError, match=r"\(id q1\)"):
        check(examples, tokenizer)


def test_labels_that_a_tokenizer_writes_alike_are_refused() -> None:
    """Of a vocabulary without them, all words are the unknown token: real, and nothing could be scored."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(
        models.WordLevel({"<unk>": 0, "</s>": 1, "ANSWER": 2, ":": 3, ".": 4}, unk_token="<unk>")
    )
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", eos_token="</s>")
    with pytest.raises(InputError, match="label 'yes' as the beginning of 'no', so they can't be told apart"):
        encoded(tokenizer)  # said there already, for every source and verb

    # and here for what came another way, as from a cache that was written by other code
    tokenizer = family("llama2")
    examples = encoded(tokenizer)
    yes, no, _ = examples[7].labels
    for alike in ((yes, no, yes), (yes, no, (*no, 5)), (yes, no, ())):
        examples[7] = examples[7]._replace(labels=alike)
        with pytest.raises(
            InputError, match=r"^train\.jsonl:8 \(id q7\): after the prompt the tokens of label"
        ):
            check(examples, tokenizer)


def _copy(tokenizer: Any) -> Any:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    copied = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    return PreTrainedTokenizerFast(
        tokenizer_object=copied, bos_token=tokenizer.bos_token, eos_token=tokenizer.eos_token
    )


# --- training and test set --------------------------------------------------------------------------


def words(rng: random.Random, count: int, vocabulary: int = 3000) -> str:
    return " ".join(f"w{rng.randrange(vocabulary)}" for _ in range(count))


def sets(seed: int = 0) -> tuple[list[Record], list[Record]]:
    rng = random.Random(seed)

    def some(name: str, count: int) -> list[Record]:
        return [
            Record(
                f"{name}{n}", words(rng, 16), (words(rng, 120),), answer="yes", where=f"{name}.jsonl:{n + 1}"
            )
            for n in range(count)
        ]

    return some("train", 40), some("test", 15)


def test_sets_that_share_nothing_are_silent() -> None:
    train, test = sets()
    assert check_apart(train, test, SOURCE) == []
    assert check_apart(train, [], SOURCE) == []
    assert check_apart([], test, SOURCE) == []


def test_an_id_in_both_sets_is_refused_whatever_the_source() -> None:
    train, test = sets()
    train[3] = replace(train[3], id="test7")
    with pytest.raises(InputError, match=r"^train\.jsonl:4 \(id test7\): .* test set, at test\.jsonl:8"):
        check_apart(train, test, MedMCQA())


def test_an_abstract_that_was_copied_into_a_longer_text_is_refused_and_both_records_named() -> None:
    train, test = sets()
    copied = f"{words(random.Random(1), 30)} {test[9].contexts[0].upper().replace(' ', ', ')}!"
    train[21] = replace(train[21], contexts=(copied,))
    with pytest.raises(
        InputError,
        match=r"^train\.jsonl:22 \(id train21\): holds text of the test question at test\.jsonl:10 \(id test9\); "
        r"the training set has 108 of its 112 runs of 13 words \(1 test questions have 10%",
    ):
        check_apart(train, test, SOURCE)


def test_an_answer_that_quotes_the_test_question_is_refused() -> None:
    train, test = sets()
    train[0] = replace(train[0], long_answer=f"See: {test[2].question}")
    test[2] = replace(test[2], contexts=())
    with pytest.raises(InputError, match=r"^train\.jsonl:1 \(id train0\): .* at test\.jsonl:3 \(id test2\)"):
        check_apart(train, test, SOURCE)


def test_a_sentence_in_common_is_told_and_twelve_words_are_nothing() -> None:
    train, test = sets()
    start = " ".join(test[4].contexts[0].split()[:14])
    train[5] = replace(train[5], contexts=(f"{train[5].contexts[0]} {start}",))
    (line,) = check_apart(train, test, SOURCE)
    assert line == (
        "Note: 1 of 15 test questions share runs of 13 words with the training set, at most 2% of a question's "
        "(test.jsonl:5 (id test4))"
    )
    twelve = " ".join(start.split()[:12])
    train[5] = replace(train[5], contexts=(twelve, f"other words, then {twelve}"))
    assert check_apart(train, test, SOURCE) == []


def test_what_recurs_in_a_benchmark_s_own_splits_is_told_and_not_refused() -> None:
    train, test = sets()
    train[8] = replace(train[8], question=test[1].question, contexts=test[1].contexts)
    (line,) = check_apart(train, test, MedMCQA())
    assert line.endswith("at most 100% of a question's (test.jsonl:2 (id test1)); 1 share 10% or more")


def test_a_short_question_may_recur_with_other_options() -> None:
    one = Record("a", "Which is right?", options={"A": "x", "B": "y"}, labels=("A", "B"), answer="A")
    assert check_apart([one], [replace(one, id="b", options={"A": "z", "B": "y"})], SOURCE) == []


@pytest.mark.parametrize("seed", range(8))
def test_the_runs_in_common_are_those_that_a_test_s_report_counts(seed: int) -> None:
    """Texts of two different words; against `contamination.overlap`."""
    rng = random.Random(seed)

    def text(least: int) -> str:
        pieces = [words(rng, rng.randrange(1, 9), 2) for _ in range(rng.randrange(4, 40))]
        return words(rng, least, 2) + ".  " + ", ".join(pieces).title() + " Ünïcode_1"

    train = [Record(f"a{n}", text(13), (text(13), text(1))) for n in range(30)]
    test = [Record(f"b{n}", text(13), (text(13),), long_answer=text(13)) for n in range(20)]
    runs, shared, _ = shared_runs(train, test)
    found = {one.id: one for one in overlap(TrainingTrace.of(train), test).questions}
    assert len(found) > 5
    for record, has, in_both in zip(test, runs.tolist(), shared.tolist(), strict=True):
        assert in_both == (found[record.id].shared if record.id in found else 0)
        if record.id in found:
            assert has == found[record.id].runs


def test_records_that_are_searched_in_several_parts_keep_their_own_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = random.Random(1)
    texts = [words(rng, 30, 500) for _ in range(7)]
    train = [Record(f"a{number}", "Why?", (text,)) for number, text in enumerate(texts)]
    test = [Record(f"b{number}", "How?", (text,)) for number, text in enumerate([*texts[4:], "none of it"])]
    at_once = [part.tolist() for part in shared_runs(train, test)]
    assert [count > 0 for count in at_once[1]] == [True] * 3 + [False]
    assert [count > 0 for count in at_once[2]] == [False] * 4 + [True] * 3
    monkeypatch.setattr("medqlora.evaluation.contamination._CHUNK", 2)
    assert [part.tolist() for part in shared_runs(train, test)] == at_once


# --- the whole check, on what a fit reads ------------------------------------------------------------


def read(source: Any, tokenizer: Any) -> PubMedQADataModule:
    data = PubMedQADataModule(source, max_prompt_tokens=400)
    data.read(tokenizer, ("train", "dev"), report=lambda line: None)
    return data


@pytest.mark.parametrize("kind", ["own file", "synthetic"])
def test_good_data_are_silent(tmp_path: Path, kind: str) -> None:
    if kind == "own file":
        files = {
            name: str(write_rows(tmp_path / f"{name}.jsonl", questions(12, start)))
            for name, start in (("train", 0), ("dev", 1000), ("test", 2000))
        }
        source: Any = JSONLines(**files)  # type: ignore[arg-type]
    else:
        source = SyntheticTrials(train=300)
    tokenizer = family("llama3")
    data = read(source, tokenizer)
    assert check_examples(data, tokenizer) == []


def test_pubmedqa_is_silent(pubmedqa_file: Path) -> None:
    tokenizer = family("qwen2")
    data = PubMedQADataModule(PubMedQA(str(pubmedqa_file)), max_prompt_tokens=5000)
    data.read(tokenizer, ("train", "dev"), report=lambda line: None)
    assert len(data.train) == 450
    assert check_examples(data, tokenizer) == []


def test_a_test_question_in_one_s_own_training_file_is_refused_with_a_word_changed(tmp_path: Path) -> None:
    """The file's reader compares whole questions: this one gets past it."""
    rng = random.Random(3)
    rows = [{**row, "contexts": [words(rng, 60)]} for row in questions(12)]
    held_out = [{**row, "contexts": [words(rng, 60)]} for row in questions(4, 2000)]
    rows[6]["contexts"] = [held_out[2]["contexts"][0] + " indeed"]
    files = {"train": rows, "test": held_out}
    paths = {name: str(write_rows(tmp_path / f"{name}.jsonl", value)) for name, value in files.items()}
    tokenizer = family("llama3")
    data = read(JSONLines(**paths, dev_fraction=0), tokenizer)  # type: ignore[arg-type]
    with pytest.raises(
        InputError, match=r"train\.jsonl:7 \(id q6\): holds text of the test question at .*test\.jsonl:3"
    ):
        check_examples(data, tokenizer)
