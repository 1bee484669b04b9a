"""Contexts from an index: what a question gets, and that it never gets the article that it was made from."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from literature import article, article_set, built, trial_rows, trials

from medqlora.records import Record
from medqlora.retrieval.retriever import Retriever
from medqlora.retrieval.search import Index

#: 16 words of an abstract
COPIED = "forty patients with severe belgrosis were given zalotrevin twice a day for eleven weeks at home"


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    path = article_set(
        tmp_path / "a.xml",
        article(11, "Zalotrevin.", f"<AbstractText Label='METHODS'>Here {COPIED}.</AbstractText>"),
        article(12, "A letter on zalotrevin.", f"<AbstractText>We read that {COPIED}!</AbstractText>"),
        article(13, "Zalotrevin in rats.", "<AbstractText>Forty rats were given zalotrevin.</AbstractText>"),
        article(14, "Zalotrevin and belgrosis reviewed."),
    )
    built(tmp_path / "i.mqi", path)
    opened = Index.open(tmp_path / "i.mqi")
    yield opened
    opened.close()


def idents(retriever: Retriever, record: Record) -> list[str]:
    return [hit.passage.ident for hit in retriever.retrieve(record).hits]


def test_the_own_article_and_every_copy_of_its_text_are_left_out(index: Index) -> None:
    record = Record("11", "Does zalotrevin help in belgrosis?", (COPIED.upper().replace(" ", "  "),))
    assert set(idents(Retriever(index, k=4), record)) == {"11", "12", "13", "14"}
    retrieved = Retriever(index, k=4, exclude_source=True).retrieve(record)
    assert {hit.passage.ident for hit in retrieved.hits} == {"13", "14"}
    assert retrieved.evidence.excluded == 2
    assert retrieved.evidence.found


@pytest.mark.parametrize(
    "record",
    [
        Record("x", "Does zalotrevin help?", long_answer=f"Yes: {COPIED}."),
        Record("x", f"Is it so that {COPIED}?"),
        Record("PubMedQA:11", "Does zalotrevin help?", aliases=("12",)),
    ],
    ids=["a copy in the long answer", "a copy in the question", "ids alone"],
)
def test_a_copy_is_known_by_any_text_or_id_of_the_question(index: Index, record: Record) -> None:
    assert set(idents(Retriever(index, k=4, exclude_source=True), record)) == {"13", "14"}


def test_twelve_words_in_a_row_are_no_copy(index: Index) -> None:
    record = Record(
        "x", "Does zalotrevin help?", (f"In other words, {' '.join(COPIED.split()[:12])}, and more.",)
    )
    assert len(idents(Retriever(index, k=4, exclude_source=True), record)) == 4


def test_articles_of_test_questions_are_held_out(index: Index) -> None:
    found = Retriever(index, k=4).retrieve(Record("x", "Does zalotrevin help?"), {"14", "12"})
    assert {hit.passage.ident for hit in found.hits} == {"11", "13"}


def test_passages_replace_the_contexts_or_follow_them_with_numbers_and_labels(index: Index) -> None:
    record = Record("x", "zalotrevin rats", ("Own text.",), ("AIM",))
    replaced = Retriever(index, k=1).retrieve(record).record
    assert replaced == replace(
        record, contexts=("Forty rats were given zalotrevin.",), context_labels=("ABSTRACT",)
    )
    kept = Retriever(index, k=2, keep_contexts=True, numbered=True).retrieve(record).record
    assert kept.contexts[0] == "Own text."
    assert kept.contexts[1] == "[1] Forty rats were given zalotrevin."
    assert kept.contexts[2].startswith("[2] ")
    assert len(kept.context_labels) == 3


def test_a_token_budget_ends_the_passages_but_the_first_always_comes(index: Index) -> None:
    def count(text: str) -> int:
        return len(text.split())

    record = Record("x", "zalotrevin rats")
    assert len(idents(Retriever(index, k=4, max_tokens=1, count_tokens=count), record)) == 1
    assert len(idents(Retriever(index, k=4, max_tokens=7, count_tokens=count), record)) == 2
    assert len(idents(Retriever(index, k=4, max_tokens=99, count_tokens=count), record)) == 4


def test_a_trial_gets_its_own_contexts_back_section_by_section(tmp_path: Path) -> None:
    records = trials(60)
    built(tmp_path / "i.mqi", trial_rows(tmp_path / "t.jsonl", records))
    opened = Index.open(tmp_path / "i.mqi")
    retriever = Retriever(opened, k=1)
    for record in records:
        found = retriever.retrieve(record)
        assert (found.record.contexts, found.record.context_labels) == (
            record.contexts,
            record.context_labels,
        )
        assert found.evidence.found
    without = Retriever(opened, k=3, exclude_source=True)
    assert all(record.id not in idents(without, record) for record in records)
    opened.close()


def test_a_question_for_which_nothing_is_found_has_no_context(index: Index) -> None:
    found = Retriever(index).retrieve(Record("x", "Quux?", ("Own.",)))
    assert (found.hits, found.record.contexts, found.evidence.coverage) == ([], (), 0.0)
