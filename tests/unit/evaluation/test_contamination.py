"""An overlap of training and test questions is found, and a trace survives being saved."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medqlora.errors import InputError
from medqlora.evaluation.contamination import (
    RUN_WORDS,
    Overlap,
    QuestionOverlap,
    TrainingTrace,
    overlap,
    run_hashes,
)
from medqlora.records import Record

WORDS = [f"word{number}" for number in range(400)]


def record(name: str, start: int, length: int, **fields: object) -> Record:
    return Record(name, f"Does {name} help?", contexts=(" ".join(WORDS[start : start + length]),), **fields)  # type: ignore[arg-type]


def test_runs_are_of_13_words_and_unique() -> None:
    text = " ".join(WORDS[:20])
    assert len(run_hashes([text])) == 20 - RUN_WORDS + 1
    assert run_hashes([text, text]).tolist() == run_hashes([text]).tolist()
    assert run_hashes([text]).dtype == np.uint64


def test_case_punctuation_and_space_do_not_hide_a_copy() -> None:
    text = " ".join(WORDS[:20])
    assert run_hashes([text.upper().replace(" ", ",\n")]).tolist() == run_hashes([text]).tolist()


def test_no_run_crosses_from_one_text_to_the_next() -> None:
    whole, halves = (
        run_hashes([" ".join(WORDS[:26])]),
        run_hashes([" ".join(WORDS[:13]), " ".join(WORDS[13:26])]),
    )
    assert (len(whole), len(halves)) == (14, 2)


def test_a_tenth_of_its_runs_makes_a_question_contaminated() -> None:
    questions = (QuestionOverlap("a", 2, 20), QuestionOverlap("b", 1, 11))
    assert Overlap((), questions, 2).contaminated == ("a",)


def test_the_most_copied_question_is_named_first() -> None:
    trained = TrainingTrace.of([record("9", 0, 40)])
    found = overlap(trained, [record("1", 27, 40), record("2", 0, 40), record("3", 20, 40)])
    assert [one.id for one in found.questions] == ["2", "3", "1"]


def test_a_long_answer_is_looked_for_from_a_runs_words_on_and_a_short_passage_never_by_itself() -> None:
    innocent = "There was no difference."
    trained = TrainingTrace.of([Record("9", "Why?", contexts=(innocent, " ".join(WORDS[:5])))])
    assert not overlap(trained, [Record("1", "How?", contexts=(innocent, " ".join(WORDS[50:60])))]).questions
    answer = " ".join(WORDS[:RUN_WORDS])
    trained = TrainingTrace.of([Record("9", "Why?", long_answer=answer)])
    assert overlap(trained, [Record("1", "How?", long_answer=answer)]).questions
    trained = TrainingTrace.of([Record("9", "Why?", long_answer=innocent)])
    assert not overlap(trained, [Record("1", "How?", long_answer=innocent)]).questions


def test_order_matters() -> None:
    assert not np.isin(run_hashes([" ".join(WORDS[:13])]), run_hashes([" ".join(WORDS[12::-1])])).any()


def test_hashes_are_the_same_in_every_process() -> None:
    code = "from medqlora.evaluation.contamination import run_hashes; print(run_hashes(['a b c d']).tolist())"
    seen = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert seen == {f"{run_hashes(['a b c d']).tolist()}\n"}


def test_a_copied_context_a_shared_id_and_a_short_question_are_found() -> None:
    train = TrainingTrace.of([record("1", 0, 60), record("2", 100, 60), Record("9", "Is aspirin safe?")])
    test = [record("2", 300, 60), record("3", 0, 60), Record("4", "is ASPIRIN safe"), record("5", 200, 60)]
    found = overlap(train, test)
    assert found.ids == ("2",)
    assert {one.id for one in found.questions} == {"2", "3", "4"}  # 2 by its question
    assert set(found.contaminated) == {"2", "3", "4"}
    assert found.to_json()["questions_sharing_a_run"] == 3
    json.dumps(found.to_json())


@pytest.mark.parametrize("ident", ["0", "17", "ward:17", "17#2"])
def test_a_row_number_is_shared_only_with_its_words(ident: str) -> None:
    train = TrainingTrace.of([record(ident, 0, 60), record("7482275", 0, 60)])
    other, same = record(ident, 200, 60), record(ident, 0, 60)
    other = replace(other, question="Something that was never asked before?")
    assert overlap(train, [other]).contaminated == ()
    assert overlap(train, [same]).contaminated == (ident,)
    assert overlap(train, [replace(other, id="7482275")]).contaminated == ("7482275",)


def test_one_common_phrase_is_reported_but_not_flagged() -> None:
    train = TrainingTrace.of([record("1", 0, 100)])
    found = overlap(train, [Record("2", "New?", contexts=(" ".join([*WORDS[:13], *WORDS[200:]]),))])
    assert [one.shared for one in found.questions] == [1]
    assert found.contaminated == ()


def test_a_trace_survives_saving_without_pickle(tmp_path: Path) -> None:
    trace = TrainingTrace.of([record("1", 0, 60), record("a\nb\0é", 50, 60)])
    path = tmp_path / "training_trace.npz"
    trace.save(path)
    with np.load(path, allow_pickle=False) as data:
        assert set(data) == {"version", "run_words", "ids", "hashes"}
    loaded = TrainingTrace.load(path)
    assert loaded.ids == trace.ids
    assert loaded.hashes.tolist() == trace.hashes.tolist()
    assert [one.name for one in tmp_path.iterdir()] == ["training_trace.npz"]
    first = path.read_bytes()
    trace.save(path)
    assert path.read_bytes() == first
    empty = TrainingTrace.of([])
    empty.save(path)
    assert TrainingTrace.load(path).ids == ()


def test_a_missing_broken_or_older_trace_is_a_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "trace.npz"
    with pytest.raises(InputError, match="no such file"):
        TrainingTrace.load(path)
    path.write_bytes(b"not a zip")
    with pytest.raises(InputError, match="no record of training texts"):
        TrainingTrace.load(path)
    with path.open("wb") as file:
        np.savez(
            file, version=0, run_words=13, ids=np.frombuffer(b"[]", np.uint8), hashes=np.empty(0, np.uint64)
        )
    with pytest.raises(InputError, match="version 0"):
        TrainingTrace.load(path)


def test_the_official_split_of_pubmedqa_is_not_contaminated(
    pubmedqa_file: Path, official_test_ids: list[str]
) -> None:
    rows = json.loads(pubmedqa_file.read_text("utf-8"))
    records = {
        pmid: Record(pmid, row["QUESTION"], tuple(row["CONTEXTS"]), long_answer=row["LONG_ANSWER"])
        for pmid, row in rows.items()
    }
    test = [records[pmid] for pmid in official_test_ids]
    found = overlap(
        TrainingTrace.of([one for one in records.values() if one.id not in set(official_test_ids)]), test
    )
    assert found.contaminated == ()
    assert len(found.questions) < 10
    everything = overlap(TrainingTrace.of(list(records.values())), test)
    assert len(everything.contaminated) == 500
