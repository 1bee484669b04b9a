"""PubMedQA from the files of the authors' split, of which each verb reads its own, and from a CSV of the Hub's."""

import csv
import json
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from example_records import tell_tale_key

from medqlora.data import PubMedQA, official_folds, official_test_ids
from medqlora.data.readers import read_rows
from medqlora.data.sources.pubmedqa_rows import record_of
from medqlora.data.stages import read_stages
from medqlora.errors import InputError
from medqlora.records import Splits

FIT, VALIDATE, TEST, PREDICT = ("train", "dev"), ("dev",), ("dev", "test"), ("test",)


def silent(line: str) -> None: ...


def row(pmid: str) -> dict[str, Any]:
    return {
        "QUESTION": f"Does drug {pmid} help?",
        "CONTEXTS": [f"Trial {pmid}.", "It's done."],
        "LABELS": ["METHODS", "RESULTS"],
        "MESHES": ["Adult"],
        "final_decision": "yes",
        "LONG_ANSWER": f"Drug {pmid} helps.",
    }


def all_pmids() -> list[str]:
    return [*official_test_ids(), *(pmid for fold in official_folds() for pmid in fold)]


def put(path: Path, rows: dict[str, Any], pmids: Iterable[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({pmid: rows[pmid] for pmid in pmids}), "utf-8")
    return path


def split_files(data: Path, rows: dict[str, Any], *, folds: Iterable[int] = range(10)) -> Path:
    """What `split_dataset.py` writes into `data`."""
    put(data / "test_set.json", rows, official_test_ids())
    everything = official_folds()
    for fold in folds:
        train = [pmid for number, part in enumerate(everything) if number != fold for pmid in part]
        put(data / f"pqal_fold{fold}" / "train_set.json", rows, train)
        put(data / f"pqal_fold{fold}" / "dev_set.json", rows, everything[fold])
    return data


@pytest.fixture(scope="module")
def invented() -> dict[str, Any]:
    return {pmid: row(pmid) for pmid in all_pmids()}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, invented: dict[str, Any]) -> Path:
    return split_files(tmp_path_factory.mktemp("authors") / "data", invented)


def ids(records: Iterable[Any]) -> list[str]:
    return [record.id for record in records]


def texts(splits: Splits) -> list[list[tuple[Any, ...]]]:
    return [[(one.id, one.question, one.contexts, one.answer) for one in part] for part in splits]


@pytest.mark.parametrize("stages", [TEST, PREDICT])
def test_the_test_set_alone_can_be_tested_and_asked(data: Path, stages: tuple[str, ...]) -> None:
    splits = read_stages(PubMedQA(str(data / "test_set.json")), stages, silent)
    assert ids(splits.test) == list(official_test_ids())
    assert splits.train == splits.dev == []


@pytest.mark.parametrize("stages", [FIT, VALIDATE])
def test_the_test_set_alone_can_not_be_trained(data: Path, stages: tuple[str, ...]) -> None:
    with pytest.raises(
        InputError,
        match=rf"--data\.source\.path: .*test_set\.json holds none of the {' and '.join(stages)} set's questions "
        r"\(0 of the train set, 0 of the dev set, 500 of the test set\): get https.*pqal_foldN",
    ):
        read_stages(PubMedQA(str(data / "test_set.json")), stages, silent)


@pytest.mark.parametrize("fold", [0, 3, 9])
def test_a_fold_s_folder_can_be_trained_and_is_the_fold_that_it_holds(data: Path, fold: int) -> None:
    path = str(data / f"pqal_fold{fold}")
    said: list[str] = []
    source = PubMedQA(path)
    splits = read_stages(source, FIT, said.append)
    assert ids(splits.dev) == list(official_folds()[fold])
    assert len(splits.train) == 450
    assert set(ids(splits.train)).isdisjoint(ids(splits.dev))
    assert splits.test == []
    assert [line for line in said if "rows" not in line] == (
        [] if fold == 0 else [f"{path} holds fold {fold}"]
    )
    assert source.fingerprint()["fold"] == fold
    assert ids(read_stages(PubMedQA(path, fold=fold), VALIDATE, silent).dev) == ids(splits.dev)
    with pytest.raises(InputError, match="holds none of the test set's questions"):
        read_stages(PubMedQA(path), TEST, silent)


def test_a_renamed_folder_is_known_by_what_it_holds(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data / "pqal_fold4", tmp_path / "mine")
    source = PubMedQA(str(tmp_path / "mine"))
    assert ids(read_stages(source, FIT, silent).dev) == list(official_folds()[4])


def test_the_authors_folder_gives_every_verb_what_the_whole_file_gives(
    data: Path, invented: dict[str, Any], tmp_path: Path
) -> None:
    whole = put(tmp_path / "ori_pqal.json", invented, all_pmids())
    for fold in (0, 7):
        expected = texts(PubMedQA(str(whole), fold=fold).read())
        assert texts(PubMedQA(str(data), fold=fold).read()) == expected
        for stages in (FIT, TEST):
            found = read_stages(PubMedQA(str(data), fold=fold), stages, silent)
            assert texts(found) == expected


def test_ori_pqal_is_taken_from_among_the_authors_other_files(
    invented: dict[str, Any], tmp_path: Path
) -> None:
    put(tmp_path / "ori_pqal.json", invented, all_pmids())
    (tmp_path / "test_ground_truth.json").write_text("{}", "utf-8")
    (tmp_path / "test_set.json").write_text("not read", "utf-8")
    assert [len(part) for part in PubMedQA(str(tmp_path)).read()] == [450, 50, 500]


def test_the_real_split_files_give_what_the_real_file_gives(pubmedqa_file: Path, tmp_path: Path) -> None:
    real = json.loads(pubmedqa_file.read_text("utf-8"))
    split_files(tmp_path, real, folds=(3,))
    expected = PubMedQA(str(pubmedqa_file), fold=3).read()
    fit = read_stages(PubMedQA(str(tmp_path / "pqal_fold3")), FIT, silent)
    assert texts(fit)[:2] == texts(expected)[:2]
    test = read_stages(PubMedQA(str(tmp_path / "test_set.json")), TEST, silent)
    assert texts(test)[2] == texts(expected)[2]


def test_a_file_is_only_read_where_a_verb_needs_it(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data / "pqal_fold0", tmp_path / "pqal_fold0")
    shutil.copy(data / "test_set.json", tmp_path)
    (tmp_path / "pqal_fold0" / "train_set.json").write_text("{", "utf-8")
    source = PubMedQA(str(tmp_path))
    assert len(read_stages(source, PREDICT, silent).test) == 500
    assert len(read_stages(source, VALIDATE, silent).dev) == 50
    with pytest.raises(InputError, match=r"train_set\.json:1: not JSON"):
        read_stages(source, FIT, silent)


def test_only_the_needed_splits_have_to_be_whole(invented: dict[str, Any], tmp_path: Path) -> None:
    first, dev = official_test_ids()[0], official_folds()[0][0]
    whole = put(tmp_path / "a.json", invented, [pmid for pmid in all_pmids() if pmid != first])
    assert len(read_stages(PubMedQA(str(whole)), FIT, silent).train) == 450
    with pytest.raises(
        InputError, match=rf"lacks 1 of the 500 official questions of the test set \(PMID {first}"
    ):
        read_stages(PubMedQA(str(whole)), TEST, silent)
    whole = put(tmp_path / "b.json", invented, [pmid for pmid in all_pmids() if pmid != dev])
    assert len(read_stages(PubMedQA(str(whole)), TEST, silent).test) == 500
    with pytest.raises(
        InputError, match=rf"lacks 1 of the 500 official questions of the train and dev set .*{dev}"
    ):
        read_stages(PubMedQA(str(whole)), FIT, silent)


def test_extra_training_data_is_not_read_for_a_test(data: Path) -> None:
    source = PubMedQA(str(data), artificial="/absent.json")
    assert len(read_stages(source, TEST, silent).test) == 500
    with pytest.raises(InputError, match=r"--data\.source\.artificial"):
        read_stages(source, FIT, silent)


def test_files_of_another_split_are_refused(data: Path, invented: dict[str, Any], tmp_path: Path) -> None:
    folds = official_folds()
    train = [pmid for fold in folds[1:] for pmid in fold]
    folder = tmp_path / "pqal_fold0"
    put(folder / "dev_set.json", invented, [*folds[0][:-1], folds[1][0]])
    put(folder / "train_set.json", invented, train)
    with pytest.raises(
        InputError, match=rf"key {folds[1][0]}: .* not in PubMedQA's official dev set of fold 0"
    ):
        PubMedQA(str(folder)).read()
    put(folder / "dev_set.json", invented, folds[0])
    put(folder / "train_set.json", invented, [*train, official_test_ids()[5]])
    with pytest.raises(InputError, match=rf"key {official_test_ids()[5]}: .* official train set of fold 0"):
        read_stages(PubMedQA(str(folder)), FIT, silent)
    with pytest.raises(
        InputError, match=r"--data\.source\.fold: 2, and .*pqal_fold3 holds the official fold 3"
    ):
        read_stages(PubMedQA(str(data / "pqal_fold3"), fold=2), FIT, silent)


def test_a_folder_without_the_fold_that_is_asked_for_is_told(
    invented: dict[str, Any], tmp_path: Path
) -> None:
    split_files(tmp_path, invented, folds=(1, 2))
    with pytest.raises(
        InputError, match=r"--data\.source\.fold: 5, and .* no folder pqal_fold5 \(pqal_fold1, pqal_f"
    ):
        PubMedQA(str(tmp_path), fold=5).read()
    shutil.rmtree(tmp_path / "pqal_fold1")
    assert ids(PubMedQA(str(tmp_path)).read().dev) == list(official_folds()[2])  # there is but one


def test_a_part_without_a_fold_keeps_the_fold_that_is_asked_for(
    invented: dict[str, Any], tmp_path: Path
) -> None:
    without = [pmid for pmid in all_pmids() if pmid not in official_folds()[3]]
    path = put(tmp_path / "part.json", invented, without)
    splits = PubMedQA(str(path), fold=0, allow_partial=True).read()
    assert [len(part) for part in splits] == [400, 50, 500]


def test_the_fingerprint_tells_the_files_of_a_folder(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "data")
    first = PubMedQA(str(tmp_path / "data")).fingerprint()
    assert set(first["files"][str(tmp_path / "data")]) == {"train_set.json", "dev_set.json", "test_set.json"}  # type: ignore[index]
    changed = json.loads((data / "test_set.json").read_text("utf-8"))
    changed[official_test_ids()[0]]["QUESTION"] = "Why?"
    (tmp_path / "data" / "test_set.json").write_text(json.dumps(changed), "utf-8")
    assert PubMedQA(str(tmp_path / "data")).fingerprint() != first


# --- the Hub's table as CSV --------------------------------------------------------------------------


def as_lists(context: dict[str, Any]) -> str:
    return str(context)


def as_json(context: dict[str, Any]) -> str:
    return json.dumps(context)


def as_arrays(context: dict[str, Any]) -> str:
    """As pandas writes what it read from Parquet."""
    import numpy as np

    return str({key: np.array(value, dtype=object) for key, value in context.items()})


@pytest.mark.parametrize("written", [as_lists, as_json, as_arrays])
def test_a_csv_of_the_hub_s_table_gives_the_same_records(
    invented: dict[str, Any], written: Any, tmp_path: Path
) -> None:
    whole = put(tmp_path / "ori_pqal.json", invented, all_pmids())
    path = tmp_path / "hub.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["pubid", "question", "context", "long_answer", "final_decision"])
        for pmid, one in invented.items():
            context = {"contexts": one["CONTEXTS"], "labels": one["LABELS"], "meshes": one["MESHES"]}
            context |= {"reasoning_required_pred": list("yes"), "reasoning_free_pred": list("no")}
            writer.writerow(
                [pmid, one["QUESTION"], written(context), one["LONG_ANSWER"], one["final_decision"]]
            )
    found = PubMedQA(str(path)).read()
    assert texts(found) == texts(PubMedQA(str(whole)).read())
    assert found.test[0].annotations == {"reasoning_required": "yes", "reasoning_free": "no"}
    assert found.test[0].context_labels == ("METHODS", "RESULTS")


def test_the_reported_csv_gives_passages_and_no_annotator_s_answer(cases: Path) -> None:
    rows = read_rows(str(cases / "data" / "hf_pubmedqa.csv"), "--data.source.path")
    records = [record_of(one) for one in rows]
    assert len(records) == 12
    assert records[0].contexts == (
        "We gave velomab to 100 adults.",
        "Stroke fell from 30% to 10% (p < 0.01).",
    )
    assert not any("_pred" in text or "[" in text for record in records for text in record.contexts)
    # where a reader takes the cell for a passage, the prompt is refused
    raw = [replace(one, contexts=(row.value["context"],)) for one, row in zip(records, rows, strict=True)]
    assert {tell_tale_key(one) for one in raw} == {"reasoning_required_pred"}
