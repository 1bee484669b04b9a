"""PubMedQA's artificial and unlabelled sets as training sets alone."""

import json
from pathlib import Path
from typing import Any

import pytest

from medqlora.data import PubMedQAExtra, official_test_ids
from medqlora.errors import InputError


def rows(count: int, **changes: Any) -> dict[str, Any]:
    return {
        str(number): {
            "QUESTION": f"Does drug {number} help?",
            "CONTEXTS": [f"Trial {number}."],
            "LABELS": ["METHODS"],
            "MESHES": ["Adult"],
            "final_decision": "yes" if number % 3 else "no",
            "LONG_ANSWER": f"Drug {number} helps.",
            **changes,
        }
        for number in range(1, count + 1)
    }


def put(folder: Path, content: dict[str, Any]) -> str:
    path = folder / "extra.json"
    path.write_text(json.dumps(content), "utf-8")
    return str(path)


def test_all_of_them_are_for_training_and_a_sample_is_the_same_in_any_order(tmp_path: Path) -> None:
    path = put(tmp_path, rows(12))
    train, dev, test = PubMedQAExtra(path=path).read()
    assert (len(train), dev, test) == (12, [], [])
    assert {record.answer for record in train} == {"yes", "no"}
    sample = [record.id for record in PubMedQAExtra(path=path, samples=5).read().train]
    path = put(tmp_path, dict(reversed(rows(12).items())))
    assert [record.id for record in PubMedQAExtra(path=path, samples=5).read().train] == sample


def test_unlabelled_questions_are_answered_by_their_conclusion(tmp_path: Path) -> None:
    (record,) = PubMedQAExtra("unlabeled", path=put(tmp_path, rows(1))).read().train
    assert (record.labels, record.answer, record.long_answer) == ((), "Drug 1 helps.", "")


def test_a_test_questions_pmid_is_refused(tmp_path: Path) -> None:
    leak = official_test_ids()[0]
    path = put(tmp_path, {**rows(2), leak: rows(1)["1"]})
    with pytest.raises(InputError, match=rf"the artificial set holds the PMID {leak}"):
        PubMedQAExtra(path=path).read()


@pytest.mark.parametrize("bad", [{"kind": "labeled"}, {"samples": 0}])
def test_a_wrong_option_is_told(bad: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"--data.source.{next(iter(bad))}"):
        PubMedQAExtra(**bad)
