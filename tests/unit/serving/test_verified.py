"""The claims of a served answer have the verdicts that `ask --verify` gives them, whatever the calibration."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from literature import article, article_set, built
from served import trained_adapter

from medqlora.inference import Answer, Predictor
from medqlora.records import Record
from medqlora.retrieval import LabelScorer, Retriever, Verifier, open_for_search
from medqlora.retrieval.citations import cited_answer
from medqlora.serving.claims import verified

TEXT = "Drug 3 lowers the risk. It does not raise mortality in this ward! Is it safe? Too short."


@pytest.fixture(scope="module")
def predictor(tiny_bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """Calibrated with a temperature of 1.5."""
    folder = tmp_path_factory.mktemp("adapter") / "ward"
    adapter = trained_adapter(tiny_bases["llama"], folder, threshold=0.0, seed=2)
    return Predictor.load(adapter, device="cpu", generate=False)


@pytest.fixture(scope="module")
def hits(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("index")
    text = "<AbstractText>Drug 3 was given to half of the ward.</AbstractText>"
    files = article_set(folder / "pubmed.xml", article(7, "Drug 3.", text), article(8, "Drug 3 again."))
    built(folder / "index.db", files)
    retriever = Retriever(open_for_search(folder / "index.db", "--index"), k=2)
    return retriever.retrieve(Record("q", "Does drug 3 help?")).hits


def test_claims_have_the_verdicts_of_the_verifier(predictor: Predictor, hits: Any) -> None:
    assert predictor.calibration is not None
    expected = Verifier(LabelScorer(predictor)).verify_against(TEXT, hits)
    assert [one.claim for one in expected] == [
        "Drug 3 lowers the risk.",
        "It does not raise mortality in this ward!",
    ]
    answer = replace(predictor.answer("Does drug 3 help?"), rationale=TEXT)
    ids: list[str] = []

    async def score(record: Record) -> Answer:
        ids.append(record.id)
        return predictor.answers([record])[0]

    found = asyncio.run(verified(cited_answer(answer, hits), predictor.labels, "req-1", score))
    plain = found.to_json()
    assert plain["claims"] is not None
    assert len(set(ids)) == len(expected) * len(hits)
    for one, wanted in zip(found.claims or (), [each.to_json() for each in expected], strict=True):
        assert (one["claim"], one["verdict"]) == (wanted["claim"], wanted["verdict"])
        assert one["confidence"] == pytest.approx(wanted["confidence"], abs=1e-4)


def test_a_score_that_fails_ends_the_others(predictor: Predictor, hits: Any) -> None:
    answer = replace(predictor.answer("Does drug 3 help?"), rationale=TEXT)
    begun: list[str] = []
    ended: list[str] = []

    async def score(record: Record) -> Answer:
        begun.append(record.id)
        if len(begun) == 2:
            raise RuntimeError("no process")
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(record.id)
        return answer

    with pytest.raises(RuntimeError, match="no process"):
        asyncio.run(verified(cited_answer(answer, hits), predictor.labels, "req-1", score))
    assert len(ended) == len(begun) - 1
