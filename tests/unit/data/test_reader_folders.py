"""Folders of Hugging Face: datasets saved to disk and Hub repositories, by split, completely, with class names."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from medqlora.data import JSONLines, PubMedQA
from medqlora.data.readers import fingerprint, read_rows, read_table
from medqlora.errors import InputError

PARTS = {"train": 6, "validation": 3, "test": 2}
OPTIONS = {"train": "train", "dev": "validation", "test": "test"}


def rows_of(name: str, count: int) -> list[dict[str, Any]]:
    return [{"question": f"{name} {n}?", "answer": ("yes", "no", "maybe")[n % 3]} for n in range(count)]


def read(path: Path, option: str = "--data.source.train") -> list[dict]:
    return [dict(row.value) for row in read_table(str(path), option).rows]


def refused(path: Path, option: str = "--data.source.train") -> str:
    with pytest.raises(InputError) as found:
        read(path, option)
    assert str(found.value).isprintable()
    return str(found.value)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DatasetDict on disk, each part in two shards."""
    from datasets import Dataset, DatasetDict

    path = tmp_path_factory.mktemp("saved") / "set"
    held = DatasetDict({name: Dataset.from_list(rows_of(name, count)) for name, count in PARTS.items()})
    held.save_to_disk(str(path), num_shards=dict.fromkeys(PARTS, 2))
    return path


def hub(folder: Path, parts: dict[str, int], shards: int = 2) -> Path:
    """A data set's repository of the Hub, as downloaded."""
    from datasets import Dataset

    folder.mkdir(parents=True)
    for name, count in parts.items():
        for number in range(shards):
            part = Dataset.from_list(rows_of(name, count)).shard(shards, number, contiguous=True)
            part.to_parquet(str(folder / f"{name}-{number:05d}-of-{shards:05d}.parquet"))
    return folder


def test_each_option_reads_its_split_of_a_dataset_dict(saved: Path) -> None:
    for option, name in OPTIONS.items():
        assert read(saved, f"--data.source.{option}") == rows_of(name, PARTS[name])
        assert read(saved / name, "--data.source.train") == rows_of(name, PARTS[name])
    splits = JSONLines(str(saved), dev=str(saved), test=str(saved)).read()
    assert [len(part) for part in splits] == list(PARTS.values())
    assert [record.id for record in splits.train] == [
        f"set-train:{shard}.{n}" for shard in (1, 2) for n in (1, 2, 3)
    ]
    assert read_table(str(saved), "--data.source.train").remark == "set: 6 rows, 2 shards in train, Arrow"
    assert "holds the parts train, validation, test" in refused(saved, "--data.source.path")


def test_the_fingerprint_covers_every_split(saved: Path, tmp_path: Path) -> None:
    copy = tmp_path / "set"
    shutil.copytree(saved, copy)
    before = fingerprint(str(copy))
    assert len(before) == 6
    file = next((copy / "test").glob("*.arrow"))
    file.write_bytes(file.read_bytes() + b"\0")
    assert fingerprint(str(copy)) != before


def test_a_missing_split_or_shard_is_an_error(saved: Path, tmp_path: Path) -> None:
    copy = tmp_path / "set"
    shutil.copytree(saved, copy)
    next((copy / "train").glob("data-00001-*")).unlink()
    assert "lacks data-00001-of-00002.arrow, which its state.json lists" in refused(copy)
    (copy / "train" / "state.json").unlink()
    assert "holds 1 of 2 shards; number 00001 is missing" in refused(copy)
    shutil.rmtree(copy / "test")
    (copy / "dataset_dict.json").write_text('{"splits": ["train", "validation"]}')
    assert "and none of them is a test set" in refused(copy, "--data.source.test")
    state = json.loads((copy / "validation" / "state.json").read_text())
    (copy / "validation" / "state.json").write_text(
        json.dumps({**state, "_indices_data_files": [{"filename": "x"}]})
    )
    assert "was saved by an old version of datasets" in refused(copy, "--data.source.dev")


@pytest.mark.parametrize("where", ["", "data", "default", "datasets--a--b/snapshots/0123abcd/data"])
def test_each_option_reads_its_split_of_a_hub_repository(tmp_path: Path, where: str) -> None:
    root = tmp_path / "repository"
    folder = hub(root / where, PARTS)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    (root / ".gitattributes").write_text("*.parquet filter=lfs\n")
    for option, name in OPTIONS.items():
        assert read(root, f"--data.source.{option}") == rows_of(name, PARTS[name])
    next(folder.glob("train-00001-*")).unlink()
    assert "holds 1 of 2 shards; number 00001 is missing: download all of them" in refused(root)


def test_a_single_split_of_a_repository_needs_no_name(tmp_path: Path) -> None:
    assert read(hub(tmp_path / "a", {"train": 6}, 1), "--data.source.test") == rows_of("train", 6)
    assert "holds only the part test, a test set: give it as --data.source.test" in refused(
        hub(tmp_path / "b", {"test": 6}, 1)
    )
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "blood-test.csv").write_text(
        "question,answer\nx,yes\n"
    )  # "test" is a common word of the field
    assert read(tmp_path / "lab") == [{"question": "x", "answer": "yes"}]
    parts = hub(tmp_path / "c", {"validation": 3, "test": 2}, 1)
    assert "and none of them is a train set" in refused(parts)


def test_several_configurations_are_an_error_and_one_can_be_named(tmp_path: Path) -> None:
    for name in ("pqa_artificial", "pqa_labeled", "pqa_unlabeled"):
        hub(tmp_path / "set" / name, {"train": 3}, 1)
    said = refused(tmp_path / "set")
    assert "holds data in pqa_artificial, pqa_labeled, pqa_unlabeled: name one of them" in said
    assert read(tmp_path / "set" / "pqa_labeled") == rows_of("train", 3)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".jsonl.gz", ".parquet"])
def test_files_named_for_splits_are_selected_by_option(tmp_path: Path, suffix: str) -> None:
    import pandas as pd

    for name, file in (("train", "train"), ("validation", "pubmed_valid"), ("test", "set-test")):
        frame = pd.DataFrame(rows_of(name, PARTS[name]))
        path = tmp_path / f"{file}{suffix}"
        if suffix == ".parquet":
            frame.to_parquet(path)
        elif suffix == ".csv":
            frame.to_csv(path, index=False)
        else:
            frame.to_json(path, orient="records", lines=True)
    for option, name in OPTIONS.items():
        assert read(tmp_path, f"--data.source.{option}") == rows_of(name, PARTS[name])
    (tmp_path / "extra.csv").write_text("question,answer\nx,yes\n")
    assert "holds 4 data files" in refused(tmp_path)


def test_folders_named_for_splits_are_selected_by_option(tmp_path: Path) -> None:
    for name in PARTS:
        (tmp_path / name).mkdir()
        (tmp_path / name / "part.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in rows_of(name, 2))
        )
    for option, name in OPTIONS.items():
        assert read(tmp_path, f"--data.source.{option}") == rows_of(name, 2)


# --- classes ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def labelled() -> Any:
    """A Dataset with classes as columns, in lists and in objects."""
    from datasets import ClassLabel, Dataset, Features, Sequence, Value

    answer = ClassLabel(names=["no", "yes", "maybe"])
    features = Features(
        {
            "question": Value("string"),
            "answer": answer,
            "tags": Sequence(answer),
            "turns": [{"who": answer, "text": Value("string")}],
            "one": {"inner": answer},
        }
    )
    return Dataset.from_dict(
        {
            "question": ["a?", "b?", "c?"],
            "answer": [1, 0, None],
            "tags": [[2, 1], [], None],
            "turns": [[{"who": 0, "text": "x"}], [], []],
            "one": [{"inner": 2}, {"inner": None}, {"inner": -1}],
        },
        features=features,
    )


WITH_NAMES = [
    {
        "question": "a?", "answer": "yes", "tags": ["maybe", "yes"], "turns": [{"who": "no", "text": "x"}],
        "one": {"inner": "maybe"},
    },
    {"question": "b?", "answer": "no", "tags": [], "turns": [], "one": {"inner": None}},
    {"question": "c?", "answer": None, "tags": None, "turns": [], "one": {"inner": None}},
]  # fmt: skip


def test_classes_are_read_as_their_names(labelled: Any, tmp_path: Path) -> None:
    labelled.save_to_disk(str(tmp_path / "disk"))
    labelled.to_parquet(str(tmp_path / "a.parquet"))
    for path in (tmp_path / "disk", tmp_path / "a.parquet"):
        assert read(path) == WITH_NAMES
        assert "class names of answer, tags, turns, one" in read_table(str(path), "--x").remark
        # readers of published sets expect the numbers
        assert read_rows(str(path), "--x")[0].value["answer"] == 1


def test_class_names_are_read_from_dataset_info_json(labelled: Any, tmp_path: Path) -> None:
    import pyarrow.parquet

    labelled.save_to_disk(str(tmp_path / "disk"))
    bare = tmp_path / "bare"
    bare.mkdir()
    table = labelled.data.table.replace_schema_metadata({})
    pyarrow.parquet.write_table(table, bare / "train.parquet")
    assert read(bare)[0]["answer"] == 1
    shutil.copy(tmp_path / "disk" / "dataset_info.json", bare)
    assert read(bare) == WITH_NAMES


def test_a_class_without_a_name_is_an_error(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    features = {"answer": {"_type": "ClassLabel", "names": ["no", "yes"]}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    table = pa.table({"answer": [0, 5]}).replace_schema_metadata(metadata)
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    assert "a.parquet:2: answer is the class 5, and 2 have a name" in refused(tmp_path / "a.parquet")


def test_a_local_copy_of_pubmedqa_has_a_remark(tmp_path: Path) -> None:
    from reader_cases import CASES

    path = tmp_path / "pqal.jsonl"
    path.write_bytes(CASES["pubmedqa hub"].good)
    source = PubMedQA(str(path), allow_partial=True)
    source.read()
    assert source.remarks == ("pqal.jsonl: 6 rows, JSON lines",)
