"""`medqlora serve --index`: answers from passages, with their sources."""

from pathlib import Path

import pytest
from literature import article, article_set, built
from served import CONTEXT, served

from medqlora.config.serving import ServeOptions
from medqlora.inference import Predictor
from medqlora.records import Record
from medqlora.retrieval import LabelScorer, Retriever, Verifier, answer_with_sources, open_for_search
from medqlora.safety import NOTE


def test_a_question_without_a_context_is_answered_from_the_index_with_its_sources(
    folders: dict[str, str], tmp_path: Path
) -> None:
    text = "<AbstractText>Drug 3 was given to half of the ward &lt;b&gt;.</AbstractText>"
    index = tmp_path / "index.db"
    built(index, article_set(tmp_path / "pubmed.xml", article(7, "Drug 3.", text), article(8, "Sleep.")))
    question = "Does drug 3 help?"
    predictor = Predictor.load(folders["ward"], device="cpu", max_new_tokens=12)
    retriever = Retriever(open_for_search(index, "--index"), k=2)
    cited = answer_with_sources(predictor, Record("q", question), retriever, NOTE)
    wanted = cited.to_json()
    with served(ServeOptions(device="cpu", index=str(index), k=2), {"ward": folders["ward"]}) as running:
        body = {"question": question, "max_new_tokens": 12}
        found = running.post("/v1/answer", body).json()
        own = running.post("/v1/answer", {**body, "contexts": [CONTEXT]}).json()
        page = running.get("/").text
        checked = running.post("/v1/answer", {**body, "verify": True}).json()
        message = {"messages": [{"role": "user", "content": question}], "max_tokens": 12}
        chat = running.post("/v1/chat/completions", {**message, "medqlora": {"verify": True}}).json()
        refused = running.post("/v1/answer", {**body, "verify": True, "contexts": [CONTEXT]})
    assert found["sources"][0]["pmid"] == "7"
    assert found["sources"] == wanted["sources"]
    assert (found["decision"], found["rationale"]) == (wanted["decision"], wanted["rationale"])
    assert found["probabilities"] == pytest.approx(wanted["probabilities"], abs=1e-5)
    assert (found["warnings"], own["sources"]) == ([], [])
    assert "source.reference" in page
    assert "claims" not in found
    # tiny random models write no sentences: tests/unit/serving/test_verified.py has claims
    verdicts = Verifier(LabelScorer(predictor)).verify_against(wanted["rationale"], cited.hits)
    assert [one["claim"] for one in checked["claims"]] == [one.claim for one in verdicts]
    assert chat["medqlora"]["claims"] == checked["claims"]
    assert checked["contradicted"] is any(one.verdict == "contradicted" for one in verdicts)
    assert refused.status_code == 422
    assert "give no contexts" in refused.json()["error"]["message"]
