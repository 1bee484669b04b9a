"""MIRAGE's five sets, from one file."""

import json

import pytest
from tokenizer_families import family

from medqlora.data import MedMCQA, MedQA, Mirage, lookup
from medqlora.data.encoding.encode import encode
from medqlora.data.sources.mirage import SIZES
from medqlora.errors import InputError

LETTERS = ("A", "B", "C", "D")
OPTIONS = {"pubmedqa": ("yes", "no", "maybe"), "bioasq": ("yes", "no")}


def key(dataset: str, number: int) -> str:
    names = {
        "medqa": f"{number:04d}",
        "mmlu": f"professional_medicine-{number}",
        "pubmedqa": str(10**7 + number),
    }
    return names.get(dataset, f"{dataset[0]}f0e-{number}")


def questions(dataset: str, count: int, shift: int = 0) -> dict:
    texts = OPTIONS.get(dataset, tuple(f"Drug {letter}" for letter in LETTERS))
    options = dict(zip(LETTERS, texts, strict=False))
    return {
        key(dataset, number): {
            "question": f"What of {dataset} {number}?",
            "options": options,
            "answer": LETTERS[(number + shift) % len(options)],
        }
        for number in range(count)
    }


@pytest.fixture
def put(tmp_path):
    def write(data: object, name: str = "benchmark.json") -> str:
        path = tmp_path / name
        path.write_text(json.dumps(data), "utf-8")
        return str(path)

    return write


@pytest.fixture
def whole(put) -> str:
    return put({dataset: questions(dataset, size) for dataset, size in SIZES.items()})


@pytest.mark.parametrize("dataset", list(SIZES))
def test_each_set_is_read_whole_and_alone(whole, dataset):
    assert SIZES == {"medqa": 1273, "medmcqa": 4183, "mmlu": 1089, "pubmedqa": 500, "bioasq": 618}
    source = Mirage(dataset, whole)
    train, dev, test = source.read()
    assert source.name == f"MIRAGE {dataset}"
    assert (len(train), len(dev), len(test)) == (0, 0, SIZES[dataset])
    record = test[1]
    assert record.question == f"What of {dataset} 1?"
    assert (record.answer, record.contexts) == ("B", ())
    assert record.labels == LETTERS[: len(OPTIONS.get(dataset, LETTERS))]
    assert tuple(record.options) == record.labels
    assert record.where.endswith(f"benchmark.json: {dataset} {key(dataset, 1)}")


def test_pmids_and_subjects_are_kept_and_running_numbers_get_the_sets_name(whole):
    assert Mirage("pubmedqa", whole).read().test[0].id == "10000000"
    assert Mirage("medqa", whole).read().test[0].id == "medqa-0000"
    record = Mirage("mmlu", whole).read().test[267]
    assert record.id == "professional_medicine-267"
    assert (record.subject, record.topics) == ("professional medicine", ("professional medicine",))


def test_lm_eval_is_the_benchmarks_own_prompt_where_the_harness_has_one(whole):
    assert Mirage("medqa", whole).prompt("lm_eval") is MedQA().prompt("lm_eval")
    assert Mirage("medmcqa", whole).prompt("lm_eval") is MedMCQA().prompt("lm_eval")
    assert Mirage("bioasq", whole).prompt("lm_eval") is lookup("lm_eval")
    source = Mirage("mmlu", whole)
    record = source.read().test[0]
    text = source.prompt("lm_eval").body(
        record.question, record.contexts, record.options, record.labels, record.subject
    )
    assert text == (
        "The following are multiple choice questions (with answers) about professional medicine.\n\n"
        "What of mmlu 0?\nA. Drug A\nB. Drug B\nC. Drug C\nD. Drug D\nAnswer:"
    )


def test_a_part_is_refused_unless_allowed(put):
    path = put({"bioasq": questions("bioasq", 617)})
    with pytest.raises(InputError, match=r"617 of the 618 questions of MIRAGE bioasq: .*allow_partial true"):
        Mirage("bioasq", path).read()
    assert len(Mirage("bioasq", path, allow_partial=True).read().test) == 617


@pytest.mark.parametrize("data", [{"medqa": {}}, {"bioasq": []}, [1]])
def test_a_file_without_the_set_says_where_to_get_it(put, data):
    with pytest.raises(
        InputError, match=r"--data\.source\.test: .* holds no 'bioasq': get .*benchmark\.json"
    ):
        Mirage("bioasq", put(data)).read()


def test_a_missing_file_and_an_unknown_set_are_named_with_their_option():
    with pytest.raises(InputError, match=r"--data\.source\.test: there is no file /absent\.json"):
        Mirage("medqa", "/absent.json").read()
    with pytest.raises(InputError, match=r"--data\.source\.dataset: 'medqaa' is none of medqa, medmcqa"):
        Mirage("medqaa", "x.json")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"question": ""}, "question is missing or empty"),
        ({"options": ["a", "b"]}, r"options is \['a', 'b'\]: give an object of letters"),
        ({"options": {"A": "a", "B": 2}}, "options B is 2: give a text"),
        ({"answer": "C"}, "answer is 'C', which is none of A, B"),
    ],
)
def test_a_bad_question_is_named_with_key_value_and_fix(put, changes, match):
    data = questions("bioasq", 3)
    data[key("bioasq", 1)] |= changes
    with pytest.raises(InputError, match=rf"benchmark\.json: bioasq {key('bioasq', 1)}: {match}") as found:
        Mirage("bioasq", put({"bioasq": data}), allow_partial=True).read()
    assert "\n" not in str(found.value)


def test_an_mmlu_key_without_its_subject_is_refused(put):
    with pytest.raises(InputError, match=r"mmlu virology-1: its key does not begin with one of anatomy"):
        Mirage("mmlu", put({"mmlu": {"virology-1": questions("mmlu", 1).popitem()[1]}})).read()


@pytest.mark.parametrize("name", ["medical", "chat", "lm_eval"])
@pytest.mark.parametrize("dataset", list(SIZES))
def test_the_answer_reaches_no_prompt(put, dataset, name):
    source = Mirage(dataset, put({dataset: questions(dataset, 4)}), allow_partial=True)
    mine = source.read().test
    changed = put({dataset: questions(dataset, 4, shift=1)}, "other.json")
    for one, other in zip(mine, Mirage(dataset, changed, allow_partial=True).read().test, strict=True):
        assert one.answer != other.answer
        found = [encode(r, source.prompt(name), family("qwen2"), 500) for r in (one, other)]
        assert found[0].prompt == found[1].prompt
        assert len(found[0].labels) == len(one.labels)


def test_fingerprints_tell_set_and_content(put):
    path = put({"bioasq": questions("bioasq", 3)})
    first = Mirage("bioasq", path).fingerprint()
    assert json.loads(json.dumps(first)) == first
    assert Mirage("medqa", path).fingerprint() != first
    put({"bioasq": questions("bioasq", 4)})
    assert Mirage("bioasq", path).fingerprint() != first
