"""MedQA in the shapes it is handed around in, whole, and asked as the harness asks it."""

import json

import pytest
from tokenizer_families import family

from medqlora.data import MedQA
from medqlora.data.encoding.encode import encode
from medqlora.data.sources.medqa import HUB
from medqlora.errors import InputError

LETTERS = ("A", "B", "C", "D")


def authors(number: int, **changes: object) -> dict:
    """A row of the authors' JSONL; every fifth question has the answer D."""
    answer = LETTERS[number % 4]
    options = {letter: f"Drug {number}{letter}" for letter in LETTERS}
    row = {
        "question": f"A {number}-year-old man has a cough. What is given?",
        "answer": options[answer],
        "options": options,
        "meta_info": "step1" if number % 2 else "step2&3",
        "answer_idx": answer,
        "metamap_phrases": ["man", f"cough {number}"],
    }
    return {**row, **changes}


def hf(number: int, part: str = "test", **changes: object) -> dict:
    """The same row in the Hub's -hf shape."""
    row = authors(number)
    endings = {f"ending{index}": text for index, text in enumerate(row["options"].values())}
    label = LETTERS.index(row["answer_idx"])
    return {
        "id": f"{part}-{number:05d}",
        "sent1": row["question"],
        "sent2": "",
        **endings,
        "label": label,
        **changes,
    }


TEST = [authors(number) for number in range(1273)]


@pytest.mark.parametrize("name", ["test.jsonl", "test.json", "test.parquet"])
def test_the_authors_file_holds_1273_questions_with_letters_and_steps(lines, name):
    train, dev, test = MedQA(lines(TEST, name)).read()
    assert (len(train), len(dev), len(test)) == (0, 0, 1273)
    third = test[3]
    assert third.question == "A 3-year-old man has a cough. What is given?"
    assert third.options == {letter: f"Drug 3{letter}" for letter in LETTERS}
    assert (third.labels, third.answer, third.topics, third.contexts) == (LETTERS, "D", ("step1",), ())
    assert third.where.endswith(f"{name}:4")


@pytest.mark.parametrize("name", ["test.json", "test.parquet"])
def test_both_shapes_give_the_same_questions_ids_and_answers(lines, name):
    mine = MedQA(lines(TEST, "authors.jsonl")).read().test
    theirs = MedQA(lines([hf(number) for number in range(1273)], name)).read().test
    keys = ("id", "question", "options", "labels", "answer")
    assert [[getattr(r, key) for key in keys] for r in mine] == [
        [getattr(r, key) for key in keys] for r in theirs
    ]


def test_the_hubs_splits_are_read_when_they_are_asked_for(hub):
    hub[HUB, "test", "abc"] = [hf(number) for number in range(1273)]
    assert [len(part) for part in MedQA(revision="abc").read()] == [0, 0, 1273]
    hub[HUB, "train", "abc"] = [hf(number, "train") for number in range(2000, 2010)]
    hub[HUB, "validation", "abc"] = [hf(number, "dev") for number in range(3000, 3005)]
    train, dev, test = MedQA(train="hub", dev="hub", revision="abc").read()
    assert (len(train), len(dev), len(test)) == (10, 5, 1273)
    assert (train[0].id, test[0].where) == ("train-02000", f"{HUB}/test:1")


def test_an_unreachable_hub_says_which_option_takes_a_local_copy(hub):
    with pytest.raises(
        InputError, match=r"--data\.source\.test: GBaker/.*ConnectionError.*--data\.source\.test FILE$"
    ):
        MedQA().read()
    hub[HUB, "test"] = [hf(number) for number in range(1273)]
    with pytest.raises(InputError, match=r"--data\.source\.train: .*--data\.source\.train FILE$") as found:
        MedQA(train="hub").read()
    assert "\n" not in str(found.value)


def test_a_part_of_the_test_set_is_refused_unless_allowed_and_more_is_refused_always(lines):
    few = lines(TEST[:1272], "few.jsonl")
    with pytest.raises(
        InputError, match=r"few\.jsonl holds 1,272 of the 1,273 questions .*allow_partial true"
    ):
        MedQA(few).read()
    assert len(MedQA(few, allow_partial=True).read().test) == 1272
    with pytest.raises(InputError, match=r"holds 1,274 questions, and MedQA's test set has 1,273"):
        MedQA(lines([*TEST, authors(1273)], "more.jsonl"), allow_partial=True).read()


def test_a_question_of_the_test_set_is_left_out_of_train_and_dev_and_counted(lines):
    test = lines(TEST, "test.jsonl")
    shuffled = authors(5, question=TEST[5]["question"].upper() + " ")
    shuffled["options"] = dict(zip(LETTERS, reversed(list(TEST[5]["options"].values())), strict=True))
    shuffled["answer_idx"] = "C"  # as B before
    other_distractors = authors(6)
    other_distractors["options"] = {letter: f"Other {letter}" for letter in LETTERS}
    other_distractors["options"]["A"] = other_distractors["answer"]
    other_distractors["answer_idx"] = "A"
    same_words = authors(7, options={letter: f"Other {letter}" for letter in LETTERS}, answer="Other D")
    rows = [authors(2000), shuffled, other_distractors, same_words]
    dev = [authors(8), authors(2000), authors(2001)]
    source = MedQA(test, lines(rows, "train.jsonl"), lines(dev, "dev.jsonl"))
    splits = source.read()
    # the question alone, with other options and another answer, is another question
    assert [record.question for record in splits.train] == [same_words["question"]]
    assert [record.question for record in splits.dev] == [dev[1]["question"], dev[2]["question"]]
    assert source.remarks[-2:] == (
        "3 of 4 train questions are in dev or test too, and left out",
        "1 of 3 dev questions are in test too, and left out",
    )
    assert len(splits.test) == 1273


def test_equal_questions_within_the_test_set_stay(lines):
    twice = [*TEST[:-1], TEST[0]]
    assert len(MedQA(lines(twice, "test.jsonl")).read().test) == 1273


@pytest.mark.parametrize(
    ("row", "match"),
    [
        (authors(1, question=""), r"t\.jsonl:2: question is missing or empty"),
        (authors(1, options={**authors(1)["options"], "E": "Rest"}), r"t\.jsonl:2: has 5 options: .*with 4"),
        (authors(1, options={"A": "a", "B": "b", "C": "c"}), r":2: has 3 options"),
        (authors(1, options=dict.fromkeys("BADC", "x")), r":2: options is .*A to D in their order"),
        (authors(1, options=dict.fromkeys("ABCD", " ")), r":2: A, B, C, D are all empty"),
        (authors(1, answer_idx="E"), r":2: answer_idx is 'E', which is none of A, B, C, D"),
        (authors(1, answer_idx="b"), r"write 'B'"),
        (authors(1, answer_idx="C"), r":2: answer_idx is 'C': its answer is the text of option B"),
        (hf(1, label=4), r":2: label is 4: give the right option's number, 0 to 3"),
        (hf(1, label=None), r":2: label is None"),
        (hf(1, ending2=7), r":2: ending2 is 7: give a text"),
        (hf(0), None),
        ({"prompt": "a"}, r":2: neither the authors' shape .* its keys are prompt: .*JSONLines"),
    ],
)
def test_a_bad_row_is_named_with_line_value_and_fix(lines, row, match):
    rows = [hf(0), row]
    match = match or r"t\.jsonl:2: the id test-00000 is already at .*:1"
    with pytest.raises(InputError, match=match) as found:
        MedQA(lines(rows, "t.jsonl"), allow_partial=True).read()
    assert "\n" not in str(found.value)


def test_a_missing_file_is_named_with_its_option():
    with pytest.raises(InputError, match=r"--data\.source\.test: there is no file /absent\.jsonl"):
        MedQA("/absent.jsonl").read()


def test_lm_eval_is_the_harness_prompt_byte_for_byte(lines):
    # lm_eval 0.4.13: tasks/medqa/preprocess_medqa.py
    rows = [
        hf(0, sent1=" Which {label}? ", ending0="Aspirin ", ending1="{text}", ending2="", ending3="Rest\n"),
        *map(hf, range(1, 1273)),
    ]
    source = MedQA(lines(rows, "test.jsonl"))
    record = source.read().test[0]
    prompt = source.prompt("lm_eval")
    text = prompt.body(record.question, record.contexts, record.options, record.labels, record.subject)
    assert text == "Question:  Which {label}? \nA. Aspirin \nB. {text}\nC. \nD. Rest\n\nAnswer:"
    assert prompt.frame(None).delimiter + prompt.completion("A", "Because.", LETTERS) == " A"
    assert prompt.name == "lm_eval"


def test_other_prompts_are_everyones():
    assert MedQA().prompt("medical").sha256() != MedQA().prompt("lm_eval").sha256()
    with pytest.raises(InputError, match=r"--data\.prompt: .*did you mean lm_eval"):
        MedQA().prompt("lm-eval")


@pytest.mark.parametrize("name", ["medical", "chat", "lm_eval"])
def test_nothing_that_gives_the_answer_away_reaches_a_prompt(lines, name):
    other = [authors(n, metamap_phrases=["GIVEAWAY"], meta_info="GIVEAWAY") for n in range(1273)]
    for row in other:
        row["answer_idx"] = LETTERS[(LETTERS.index(row["answer_idx"]) + 1) % 4]
        row["answer"] = row["options"][row["answer_idx"]]
    source = MedQA(lines(TEST, "a.jsonl"))
    found = zip(source.read().test[::100], MedQA(lines(other, "b.jsonl")).read().test[::100], strict=True)
    for mine, changed in found:
        assert mine.answer != changed.answer
        pair = [encode(r, source.prompt(name), family("qwen2"), 500).prompt for r in (mine, changed)]
        assert pair[0] == pair[1]


def test_fingerprints_tell_settings_and_content(lines):
    path = lines(TEST, "test.jsonl")
    first = MedQA(path).fingerprint()
    assert json.loads(json.dumps(first)) == first
    assert MedQA(path, train="hub").fingerprint() != first
    lines(TEST[1:], "test.jsonl")
    assert MedQA(path).fingerprint() != first
