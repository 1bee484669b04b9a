"""PubMedQA in both shapes, with the official split, and nothing of the test set in training."""

import json
import math
import random
from collections import Counter

import pytest

from medqlora.data.sources import pubmedqa
from medqlora.data.sources.pubmedqa import (
    PubMedQA,
    official_folds,
    official_test_ids,
    reject_test_pmids,
)
from medqlora.errors import InputError
from medqlora.records import Record

LABELS = ("yes", "no", "maybe")


@pytest.fixture(scope="session")
def real(pubmedqa_file) -> dict:
    return json.loads(pubmedqa_file.read_text("utf-8"))


def invented(pmid: str, answer: str = "yes", **changes) -> dict:
    row = {
        "QUESTION": f"Does drug {pmid} help?",
        "CONTEXTS": [f"Trial {pmid}.", "It did."],
        "LABELS": ["METHODS", "RESULTS"],
        "MESHES": ["Adult"],
        "YEAR": None,
        "reasoning_required_pred": "yes",
        "reasoning_free_pred": "no",
        "final_decision": answer,
        "LONG_ANSWER": f"Drug {pmid} helps.",
    }
    return {**row, **changes}


@pytest.fixture
def official() -> dict:
    """An invented file with the official PMIDs."""
    ids = [*official_test_ids(), *(pmid for fold in official_folds() for pmid in fold)]
    return {pmid: invented(pmid, LABELS[number % 3]) for number, pmid in enumerate(ids)}


@pytest.fixture
def put(tmp_path):
    def write(data: object, name: str = "data.json") -> str:
        path = tmp_path / name
        path.write_text(data if isinstance(data, str) else json.dumps(data), "utf-8")
        return str(path)

    return write


def hub(pmid: str, row: dict) -> dict:
    """A row in the Hub's shape."""
    context = {"contexts": row["CONTEXTS"], "labels": row["LABELS"], "meshes": row["MESHES"]}
    context |= {key: list(row[key]) for key in ("reasoning_required_pred", "reasoning_free_pred")}
    names = {"question": "QUESTION", "long_answer": "LONG_ANSWER", "final_decision": "final_decision"}
    return {"pubid": int(pmid), **{key: row[theirs] for key, theirs in names.items()}, "context": context}


def without_where(records):
    return [
        tuple(getattr(r, name) for name in Record.__dataclass_fields__ if name != "where") for r in records
    ]


# --- the split --------------------------------------------------------------------------------------


def test_the_split_is_what_the_official_algorithm_gives(real, official_test_ids):
    rng = random.Random(0)

    def split(ids, parts):
        sets = [[] for _ in range(parts)]
        for label in LABELS:
            mine = [pmid for pmid in ids if real[pmid]["final_decision"] == label]
            rng.shuffle(mine)
            size = math.ceil(len(mine) / parts)
            for number in range(parts):
                sets[number] += mine[number * size : (number + 1) * size]
        if len(sets[-1]) != len(sets[0]):
            for part in sets[:-1]:
                moved = rng.choice(part)
                part.remove(moved)
                sets[-1].append(moved)
        return sets

    rest, test = split(list(real), 2)
    assert tuple(test) == pubmedqa.official_test_ids()
    assert set(test) == set(official_test_ids)
    assert tuple(map(tuple, split(rest, 10))) == official_folds()


def test_the_shipped_split_is_500_and_ten_times_50_without_overlap():
    parts = [official_test_ids(), *official_folds()]
    assert [len(part) for part in parts] == [500, *[50] * 10]
    assert len({pmid for part in parts for pmid in part}) == 1000
    # as in published copies of pqal_fold0/dev_set.json
    assert official_folds()[0][:5] == ("15879722", "12607666", "17593459", "11882828", "23588461")


@pytest.mark.parametrize("fold", range(10))
def test_each_fold_has_450_50_and_the_500_of_the_ground_truth(pubmedqa_file, official_test_ids, real, fold):
    train, dev, test = PubMedQA(str(pubmedqa_file), fold=fold).read()
    assert [len(part) for part in (train, dev, test)] == [450, 50, 500]
    assert {record.id for record in test} == set(official_test_ids)
    assert len({record.id for part in (train, dev, test) for record in part}) == 1000
    assert tuple(record.id for record in dev) == official_folds()[fold]
    assert Counter(record.answer for record in test) == {"yes": 276, "no": 169, "maybe": 55}
    assert Counter(record.answer for record in train + dev) == {"yes": 276, "no": 169, "maybe": 55}


def test_records_hold_what_the_file_holds(pubmedqa_file, real):
    for part in PubMedQA(str(pubmedqa_file)).read():
        for record in part:
            row = real[record.id]
            assert record.question == row["QUESTION"]
            assert list(record.contexts) == row["CONTEXTS"]
            assert list(record.context_labels) == row["LABELS"]
            assert list(record.topics) == row["MESHES"]
            assert (record.answer, record.long_answer) == (row["final_decision"], row["LONG_ANSWER"])
            preds = (row["reasoning_required_pred"], row["reasoning_free_pred"])
            assert tuple(record.annotations.values()) == preds
            assert list(record.annotations) == ["reasoning_required", "reasoning_free"]
            assert record.labels == LABELS
            assert record.where.endswith(f"ori_pqal.json: key {record.id}")


# --- shapes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet", "folder", "arrow"])
def test_the_hubs_shape_gives_the_same_records_in_the_same_order(official, put, tmp_path, kind):
    expected = PubMedQA(put(official)).read()
    rows = [hub(pmid, row) for pmid, row in sorted(official.items())]
    if kind == "jsonl":
        path = put("".join(json.dumps(row) + "\n" for row in rows), "hub.jsonl")
    elif kind == "json":
        path = put(rows, "hub.json")
    else:
        from datasets import Dataset

        table = Dataset.from_list(rows)
        path = str(tmp_path / "hub.parquet")
        if kind == "parquet":
            table.to_parquet(path)
        else:
            table.save_to_disk(str(tmp_path / "hub"))
            path = str(tmp_path / "hub")
            path = str(next((tmp_path / "hub").glob("*.arrow"))) if kind == "arrow" else path
    found = PubMedQA(path).read()
    for mine, theirs in zip(found, expected, strict=True):
        assert without_where(mine) == without_where(theirs)


def test_without_a_path_the_hub_is_read(official, monkeypatch):
    import datasets

    asked = []

    def load_dataset(*args, **kwargs):
        asked.append((args, kwargs))
        return [hub(pmid, row) for pmid, row in official.items()]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert [len(part) for part in PubMedQA(revision="abc").read()] == [450, 50, 500]
    assert asked == [(("qiaojin/PubMedQA", "pqa_labeled"), {"split": "train", "revision": "abc"})]


def test_an_unreachable_hub_says_how_to_use_a_local_copy(monkeypatch):
    import datasets

    def load_dataset(*args, **kwargs):
        raise ConnectionError("Couldn't reach the Hub\nand a second line")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(InputError) as found:
        PubMedQA().read()
    message = str(found.value)
    assert "--data.source.path ori_pqal.json" in message
    assert pubmedqa.DOWNLOAD in message
    assert "\n" not in message


def test_nothing_is_read_before_read():
    PubMedQA("/absent/file.json", artificial="/absent/too.json")


# --- bad input --------------------------------------------------------------------------------------

SOME = "18251357"


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"QUESTION": ""}, rf"key {SOME}: QUESTION is missing or empty"),
        ({"QUESTION": None}, r"QUESTION is missing"),
        ({"QUESTION": 5}, r"QUESTION is 5: give a text"),
        ({"CONTEXTS": []}, r"CONTEXTS is \[\]"),
        ({"CONTEXTS": ["a", 3]}, r"CONTEXTS is 3: give a list of texts"),
        ({"CONTEXTS": {"a": 1}}, r"CONTEXTS is \{'a': 1\}"),
        ({"LABELS": ["METHODS"]}, r"LABELS is \['METHODS'\]: give a name to each of the 2"),
        ({"final_decision": "perhaps"}, r"final_decision is 'perhaps', which is none of yes, no, maybe"),
        ({"final_decision": "Yes"}, r"write 'yes'"),
        ({"final_decision": None}, r"final_decision is None"),
        ({"final_decision": ["y", "e", "s"]}, r"final_decision is \['y'"),
        ({"LONG_ANSWER": ["a"]}, r"LONG_ANSWER is \['a'\]: give a text"),
        ({"reasoning_free_pred": "dunno"}, r"reasoning_free_pred is 'dunno'"),
        ({"MESHES": 3}, r"MESHES is 3"),
    ],
)
def test_a_bad_row_is_named_with_key_value_and_fix(official, put, changes, match):
    assert SOME in official
    official[SOME] |= changes
    with pytest.raises(InputError, match=match) as found:
        PubMedQA(put(official)).read()
    assert "data.json" in str(found.value)
    assert "\n" not in str(found.value)


def test_a_row_of_the_hubs_shape_is_named_by_its_line(official, put):
    rows = [hub(pmid, row) for pmid, row in official.items()]
    for line, changes, match in (
        (3, {"context": None}, r"hub\.jsonl:3: context is None"),
        (4, {"pubid": "12x"}, r"hub\.jsonl:4: pubid is '12x': give a PMID"),
        (5, {"pubid": True}, r"hub\.jsonl:5: pubid is True"),
        (6, {"question": " "}, r"hub\.jsonl:6: question is missing"),
        (7, {"pubid": rows[0]["pubid"]}, r"hub\.jsonl:7: the id .* is already at .*hub\.jsonl:1"),
    ):
        bad = [dict(row) for row in rows]
        bad[line - 1] |= changes
        with pytest.raises(InputError, match=match):
            PubMedQA(put("".join(json.dumps(row) + "\n" for row in bad), "hub.jsonl")).read()


def test_duplicate_keys_of_the_json_are_refused(official, put):
    text = json.dumps(official)
    with pytest.raises(InputError, match=rf"data\.json:1: the key '{SOME}' appears twice"):
        PubMedQA(put(text[:-1] + f', "{SOME}": ' + json.dumps(official[SOME]) + "}")).read()


def test_data_of_another_kind_is_refused(put):
    with pytest.raises(InputError, match=r"neither GitHub's shape .* are prompt, response: .*JSONLines"):
        PubMedQA(put([{"prompt": "a", "response": "b"}])).read()
    with pytest.raises(InputError, match=r"in GitHub's shape without its PMID"):
        PubMedQA(put([invented("1")])).read()


@pytest.mark.parametrize("fold", [10, -1, 1.0, "0", True])
def test_a_fold_that_there_is_not_is_refused(fold):
    with pytest.raises(InputError, match=r"--data\.source\.fold: .* give 0 to 9"):
        PubMedQA(fold=fold)


def test_a_file_that_lacks_test_questions_is_refused_unless_allowed(official, put):
    del official[official_test_ids()[0]], official[official_folds()[1][0]]
    path = put(official)
    with pytest.raises(
        InputError, match=r"lacks 2 of the 1,000 .*; 1 of them in the test set\).*allow_partial"
    ):
        PubMedQA(path).read()
    assert [len(part) for part in PubMedQA(path, allow_partial=True).read()] == [449, 50, 499]


@pytest.mark.parametrize("part", ["train", "dev", "test"])
def test_an_empty_split_is_refused_even_then(official, put, part):
    folds = official_folds()
    ids = {"train": [p for fold in folds[1:] for p in fold], "dev": folds[0], "test": official_test_ids()}[
        part
    ]
    path = put({pmid: row for pmid, row in official.items() if pmid not in ids})
    with pytest.raises(InputError, match=f"holds none of the {part} set's questions"):
        PubMedQA(path, allow_partial=True).read()


def test_a_question_that_is_not_official_is_refused(official, put):
    with pytest.raises(InputError, match=r"key 1: the PMID 1 is not among .*--data\.source\.artificial"):
        PubMedQA(put({**official, "1": invented("1")})).read()


# --- extra training data ----------------------------------------------------------------------------


def test_artificial_and_unlabeled_are_added_to_training_alone(official, put):
    path = put(official)
    artificial = put({str(n): invented(str(n), "no") for n in range(1, 21)}, "pqaa.json")
    rows = [hub(str(n), invented(str(n))) for n in range(31, 41)]
    for row in rows:
        del (
            row["final_decision"],
            row["context"]["reasoning_free_pred"],
            row["context"]["reasoning_required_pred"],
        )
    unlabeled = put("".join(json.dumps(row) + "\n" for row in rows), "pqau.jsonl")
    base = PubMedQA(path).read()
    found = PubMedQA(path, artificial=artificial, unlabeled=unlabeled).read()
    assert (found.dev, found.test) == (base.dev, base.test)
    assert found.train[:450] == base.train
    assert len(found.train) == 480
    assert (found.train[450].answer, found.train[450].labels) == ("no", LABELS)
    free = found.train[-1]
    assert (free.labels, free.answer, free.long_answer) == ((), "Drug 40 helps.", "")

    few = PubMedQA(path, artificial=artificial, artificial_samples=5).read().train[450:]
    rows = {str(n): invented(str(n), "no") for n in reversed(range(1, 21))}
    again = PubMedQA(path, artificial=put(rows, "other.json"), artificial_samples=5).read().train[450:]
    assert len(few) == 5
    assert [record.id for record in few] == [record.id for record in again]


def test_extra_training_data_that_holds_a_test_question_is_refused(official, put):
    path, leak = put(official), official_test_ids()[7]
    with pytest.raises(
        InputError, match=rf"key {leak}: the artificial set holds the PMID {leak}, .* test set"
    ):
        PubMedQA(path, artificial=put({"1": invented("1"), leak: invented(leak)}, "pqaa.json")).read()
    dev = official_folds()[0][3]
    with pytest.raises(InputError, match=rf"the PMID {dev} is already at"):
        PubMedQA(path, artificial=put({dev: invented(dev)}, "pqaa.json")).read()
    renamed = {"5": {**official[leak], "QUESTION": official[leak]["QUESTION"].upper() + " "}}
    with pytest.raises(
        InputError, match=rf"key 5: the artificial set holds the same question .* key {leak} of the"
    ):
        PubMedQA(path, artificial=put(renamed, "pqaa.json")).read()


def test_samples_without_their_data_are_refused():
    with pytest.raises(InputError, match=r"--data\.source\.artificial_samples"):
        PubMedQA(artificial_samples=5)
    with pytest.raises(InputError, match=r"--data\.source\.unlabeled_samples: 0"):
        PubMedQA(unlabeled="hub", unlabeled_samples=0)


@pytest.mark.parametrize(
    "form",
    ["{}", "PMID: {}", "pmid{}", "00{}", " {} ", "{}.0", "https://pubmed.ncbi.nlm.nih.gov/{}/", "PubMed_{}"],
)
def test_a_test_pmid_is_recognised_however_it_is_written(form):
    with pytest.raises(InputError, match="official test set"):
        reject_test_pmids([Record(id=form.format(official_test_ids()[0]), question="?")], "train")


def test_other_ids_are_no_test_pmids():
    fine = ["1", "train:12377809x", official_folds()[0][0], official_test_ids()[0] + "1", "ward-7", ""]
    reject_test_pmids([Record(id=name, question="?") for name in fine], "train")


def test_fingerprints_tell_settings_and_content(official, put):
    path = put(official)
    first = PubMedQA(path).fingerprint()
    assert json.loads(json.dumps(first)) == first
    assert PubMedQA(path, fold=1).fingerprint() != first
    official[SOME]["YEAR"] = "1999"
    put(official)
    assert PubMedQA(path).fingerprint() != first
