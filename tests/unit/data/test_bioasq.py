"""BioASQ's yes/no questions, with and without their snippets, and nothing of their answers in a prompt."""

import json

import pytest
from tokenizer_families import family

from medqlora.data import BioASQ
from medqlora.data.encoding.encode import encode
from medqlora.data.sources.pubmedqa import official_test_ids
from medqlora.errors import InputError


def question(number: int, **changes: object) -> dict:
    values = {
        "id": f"5be44bef133db5eb{number:08d}",
        "type": "yesno",
        "body": f"Is gene {number} a tumour suppressor?",
        "documents": ["http://www.ncbi.nlm.nih.gov/pubmed/1"],
        "snippets": [
            {"text": f"Gene {number} was lost.", "document": "http://www.ncbi.nlm.nih.gov/pubmed/1"},
            {"text": "It slows growth.", "document": "http://www.ncbi.nlm.nih.gov/pubmed/2"},
        ],
        "exact_answer": "yes" if number % 2 else "no",
        "ideal_answer": [f"It suppresses tumours, {number}.", "Another wording."],
    }
    return {**values, **changes}


@pytest.fixture
def put(tmp_path):
    def write(questions: list, name: str = "test.json") -> str:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"questions": questions}), "utf-8")
        return str(path)

    return write


def test_a_yes_no_question_has_its_snippets_as_contexts(put):
    train, dev, test = BioASQ(put([question(0), question(1)])).read()
    assert (train, dev) == ([], [])
    record = test[1]
    assert record.id == "5be44bef133db5eb00000001"
    assert record.question == "Is gene 1 a tumour suppressor?"
    assert record.contexts == ("Gene 1 was lost.", "It slows growth.")
    assert (record.labels, record.answer, record.options) == (("yes", "no"), "yes", {})
    assert record.long_answer == "It suppresses tumours, 1."
    assert record.where.endswith("test.json: question 2")


def test_without_context_the_question_is_asked_alone(put):
    (record,) = BioASQ(put([question(1)]), context=False).read().test
    assert record.contexts == ()
    assert BioASQ(put([question(1, snippets=[])])).read().test[0].contexts == ()


def test_other_types_are_left_out_and_counted(put):
    others = [
        question(2, type="factoid", exact_answer=[["BRCA1"]]),
        question(3, type="list", exact_answer=[["a"], ["b"]]),
        {"id": "s", "type": "summary", "body": "What of it?", "ideal_answer": ["x"]},
    ]
    source = BioASQ(put([question(0), *others, question(1)]))
    assert source.remarks == ()
    assert [record.answer for record in source.read().test] == ["no", "yes"]
    assert source.remarks == (
        "test.json: 5 questions of BioASQ's task B",
        "3 of 5 test questions are of other types than yesno, and left out",
    )
    source.read()
    assert len(source.remarks) == 2
    with pytest.raises(InputError, match=r"--data\.source\.test: .* holds no question of the type yesno"):
        BioASQ(put(others)).read()


def test_a_folder_of_batches_is_one_set(put, tmp_path):
    put([question(0)], "year/12B1_golden.json")
    put([question(1), question(2)], "year/12B2_golden.json")
    source = BioASQ(str(tmp_path / "year"))
    assert len(source.read().test) == 3
    assert len(source.fingerprint()["files"]) == 2
    put([question(0)], "year/12B3_golden.json")
    with pytest.raises(InputError, match=r"12B3_golden\.json: question 1: the id .* is already at .*12B1"):
        source.read()


@pytest.mark.parametrize(
    ("given", "answer"), [("Yes", "yes"), ("no.", "no"), (["yes"], "yes"), (" No ", "no")]
)
def test_answers_as_older_files_write_them(put, given, answer):
    assert (
        BioASQ(put([question(1, exact_answer=given, ideal_answer="One text.")])).read().test[0].answer
        == answer
    )


def test_a_test_question_is_left_out_of_training_and_counted(put):
    test = put([question(0), question(1)])
    train = put([question(1, id="other"), question(5)], "train.json")
    source = BioASQ(test, train)
    assert [r.question for r in source.read().train] == ["Is gene 5 a tumour suppressor?"]
    assert source.remarks[-1:] == ("1 of 2 train questions are in dev or test too, and left out",)


def test_an_abstract_of_pubmedqas_test_set_is_kept_from_training(put):
    url = f"http://www.ncbi.nlm.nih.gov/pubmed/{official_test_ids()[0]}"
    leaking = question(6, snippets=[{"text": "We conclude that it does.", "document": url}])
    source = BioASQ(put([question(0)]), put([leaking, question(5)], "train.json"))
    assert len(source.read().train) == 1
    assert source.remarks[1:2] == (
        "1 of 2 train questions are on abstracts of PubMedQA's test set, and left out",
    )
    assert len(BioASQ(put([leaking])).read().test) == 1  # asked, it gives nothing away


def test_a_pubmedqa_test_question_in_training_is_refused(put):
    train = put([question(5, id=official_test_ids()[0])], "train.json")
    with pytest.raises(InputError, match=r"train\.json: question 1: the train set holds the PMID"):
        BioASQ(put([question(0)]), train).read()


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"body": " "}, r"question 2: body is missing or empty"),
        ({"exact_answer": "perhaps"}, r"question 2: exact_answer is 'perhaps', which is none of yes, no"),
        ({"exact_answer": None}, r"question 2: exact_answer is None"),
        ({"exact_answer": ["yes", "no"]}, r"question 2: exact_answer is \['yes', 'no'\]"),
        ({"snippets": ["a text"]}, r"question 2: snippets is \['a text'\]: give a list of objects"),
        ({"snippets": [{"text": 3}]}, r"question 2: snippets: text is 3: give a text"),
        ({"id": None}, r"question 2: id is None"),
        ({"ideal_answer": 4}, r"question 2: ideal_answer is 4"),
    ],
)
def test_a_bad_question_is_named_with_place_value_and_fix(put, changes, match):
    with pytest.raises(InputError, match=r"test\.json: " + match) as found:
        BioASQ(put([question(0), question(1, **changes)])).read()
    assert "\n" not in str(found.value)


def test_files_that_are_not_bioasqs_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "items.json").write_text('{"questions": [1]}')
    (tmp_path / "broken.json").write_text('{"questions": [')
    for name, match in (
        ("absent.json", r"--data\.source\.test: there is no file"),
        ("empty", r"--data\.source\.test: the folder .* holds no \.json"),
        ("list.json", r"holds no list 'questions'"),
        ("items.json", r"question 1 is 1: each has to be an object"),
        ("broken.json", r"broken\.json:1: not JSON"),
    ):
        with pytest.raises(InputError, match=match):
            BioASQ(str(tmp_path / name)).read()
    with pytest.raises(InputError, match=r"--data\.source\.train: 'hub': .*participants-area"):
        BioASQ("x.json", train="hub")


@pytest.mark.parametrize("name", ["medical", "chat", "lm_eval"])
def test_neither_the_exact_nor_the_ideal_answer_reaches_a_prompt(put, name):
    source = BioASQ(put([question(0), question(1)]))
    changed = [
        question(0, exact_answer="yes", ideal_answer=["GIVEAWAY"]),
        question(1, exact_answer="no", ideal_answer="GIVEAWAY"),
    ]
    other = BioASQ(put(changed, "other.json")).read().test
    for mine, theirs in zip(source.read().test, other, strict=True):
        assert (mine.answer != theirs.answer, theirs.long_answer) == (True, "GIVEAWAY")
        found = [encode(r, source.prompt(name), family("qwen2"), 500) for r in (mine, theirs)]
        assert found[0].prompt == found[1].prompt
        assert len(found[0].labels) == 2


def test_fingerprints_tell_settings_and_content(put):
    path = put([question(0)])
    first = BioASQ(path).fingerprint()
    assert json.loads(json.dumps(first)) == first
    assert BioASQ(path, context=False).fingerprint() != first
    put([question(2)])
    assert BioASQ(path).fingerprint() != first
