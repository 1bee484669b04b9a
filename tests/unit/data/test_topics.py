"""Questions by topic: branches of MeSH by tree number or name, headings, and topics of one's own data."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from medqlora.config.data import DataOptions
from medqlora.data import SyntheticTrials
from medqlora.data import topics as module
from medqlora.data.stage_data import StageData
from medqlora.data.topics import in_topics, select
from medqlora.errors import InputError
from medqlora.records import Record, Splits

ROOT = Path(__file__).parents[3]


def record(*headings: str) -> Record:
    return Record("1", "?", topics=headings)


@pytest.mark.parametrize(
    ("topics", "headings", "kept"),
    [
        (["C14"], ["Adult", "Myocardial Infarction"], True),
        (["C14.907"], ["Myocardial Infarction"], True),
        (["C14.280"], ["Varicose Veins"], False),
        (["Cardiovascular diseases"], ["Stroke"], True),
        (["C04"], ["Stroke"], False),
        (["C04"], ["Breast Neoplasms"], True),
        (["C04", "C14"], ["Stroke"], True),
        (["C04"], ["Neoplasm Staging"], False),  # a procedure, E01
        (["hypertension"], ["Hypertension"], True),
        (["Adult"], ["Adult"], True),  # a heading of no branch that ships
    ],
)
def test_a_question_is_in_a_branch_through_its_headings(
    topics: Sequence[str], headings: Sequence[str], kept: bool
) -> None:
    assert in_topics(record(*headings), topics) is kept


def test_a_selection_counts_what_it_kept_and_a_stranger_names_the_nearest() -> None:
    splits = {"train": [record("Stroke"), record("Adult")], "dev": [], "test": [record("Stroke")]}
    kept, line = select(splits, ["C14"], ("train", "dev"))
    assert [len(part) for part in kept.values()] == [1, 0, 1]
    assert line == "Topics C14: 1 of 2 train, 0 of 0 dev questions"
    with pytest.raises(InputError, match="no question has this topic: did you mean 'Stroke'"):
        select(splits, ["Strokes"], ("train",))
    with pytest.raises(
        InputError, match=r"C13: the headings of this branch do not ship: give one of C04 Neoplasms"
    ):
        select(splits, ["C13"], ("train",))
    with pytest.raises(InputError, match="none of the 2 train questions has it"):
        select(splits, ["F03"], ("train",))


def test_every_shipped_heading_begins_in_a_shipped_branch_of_medical_subject_headings() -> None:
    shipped = json.loads(Path(module.__file__).with_name("mesh_branches.json").read_text("ascii"))
    roots = {branch[:3] for branch in shipped["branches"]}
    trees = {tree for listed in shipped["headings"].values() for tree in listed}
    assert all(re.fullmatch(r"[A-Z]\d\d(\.\d{3})*", tree) for tree in trees)
    assert {tree[:3] for tree in trees} == roots


@pytest.mark.parametrize(
    "path", sorted((ROOT / "configs" / "topics").glob("*.yaml")), ids=lambda path: path.stem
)
def test_a_shipped_selection_names_branches_that_ship(path: Path) -> None:
    options = DataOptions(**yaml.safe_load(path.read_text("utf-8"))["data"])
    assert options.topics
    assert all(module.branch_of(topic) for topic in options.topics)
    assert f"--config configs/qlora.yaml --config configs/topics/{path.name}" in path.read_text("utf-8")


def test_on_pubmedqa_the_branches_hold_the_questions_that_their_headings_say(pubmedqa_file: Path) -> None:
    records = json.loads(pubmedqa_file.read_text("utf-8"))
    found = {pmid for pmid, row in records.items() if in_topics(record(*row["MESHES"]), ["C04"])}
    by_word = {
        pmid for pmid, row in records.items() if any("Neoplasms" in heading for heading in row["MESHES"])
    }
    # whatever is named Neoplasms belongs to C04; carcinomas and the like come in addition
    assert len(by_word - found) <= 2
    assert len(found) > len(by_word)


def test_retrieval_leaves_out_the_articles_of_all_test_questions_not_of_a_topics_alone() -> None:
    from tokenizer_families import FAMILIES, family

    class Kept:
        """Leaves the contexts, and keeps what may not be given."""

        def __init__(self) -> None:
            self.held_out: set[str] = set()

        def contexts(self, records: list[Record], report: object) -> list[Record]:
            return records

        def of_set(self, *given: object) -> None:
            return None

    class Retrieving(StageData):
        def make_retrieval(self, tokenizer: object) -> Any:
            return kept

    kept = Kept()

    class Known(SyntheticTrials):
        def read(self) -> Splits:
            found = super().read()
            return found._replace(test=[replace(one, aliases=(f"pmid {one.id}",)) for one in found.test])

    source = Known(train=12, dev=8, test=8)
    topic = source.read().train[0].topics[0]
    data = Retrieving(source, None, DataOptions(topics=topic))
    data.read(family(next(iter(FAMILIES))), ("train", "dev"), report=lambda line: None)
    assert len(data.train) < 12
    assert kept.held_out == {name for one in source.read().test for name in (one.id, f"pmid {one.id}")}


def test_headings_are_compared_without_case_also_where_a_branch_is_asked_for() -> None:
    assert in_topics(record("heart diseases"), ["Heart Diseases"])
    assert in_topics(record("HEART DISEASES"), ["C14"])
    assert not in_topics(record("heart"), ["C14", "Heart Diseases"])
