"""Scores of rankings, against figures written from the definitions in another way, and the command that prints them."""

import itertools
import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
from harness import refused
from literature import article, article_set, built

from medqlora.cli import main
from medqlora.retrieval.ranking_scores import (
    by_query,
    mean_with_interval,
    ndcg_at,
    paired_p,
    recall_at,
    reciprocal_rank_at,
)


def test_the_scores_are_those_of_their_definitions() -> None:
    """The oracle goes over every document of the collection with its rank, as trec_eval defines them."""
    rng = random.Random(3)
    for _ in range(200):
        documents = [f"d{number}" for number in range(rng.randint(3, 30))]
        relevant = {one: rng.choice([0, 0, 1, 1, 2, 3]) for one in rng.sample(documents, rng.randint(1, 3))}
        if not any(relevant.values()):
            continue
        ranking = rng.sample(documents, rng.randint(0, len(documents)))
        rank = {one: place for place, one in enumerate(ranking, 1)}
        grades = {one: relevant.get(one, 0) for one in documents}
        for k in (1, 3, 10):
            hits = [one for one in documents if grades[one] and rank.get(one, 999) <= k]
            gain = math.fsum(grades[one] / math.log(1 + rank[one], 2) for one in hits)
            best = max(
                math.fsum(grade / math.log(1 + place, 2) for place, grade in enumerate(order[:k], 1))
                for order in itertools.permutations(grade for grade in grades.values() if grade)
            )
            first = min((rank[one] for one in hits), default=math.inf)
            assert ndcg_at(ranking, relevant, k) == pytest.approx(gain / best)
            assert recall_at(ranking, relevant, k) == len(hits) / sum(grade > 0 for grade in grades.values())
            assert reciprocal_rank_at(ranking, relevant, k) == 1 / first


def test_the_scores_are_those_of_ir_measures() -> None:
    import ir_measures
    from ir_measures import RR, Qrel, R, ScoredDoc, nDCG

    rng = random.Random(5)
    documents = [f"d{number}" for number in range(40)]
    judgements = {
        f"q{number}": {one: rng.choice([0, 1, 1, 2]) for one in rng.sample(documents, 6)}
        for number in range(30)
    }
    rankings = {query: rng.sample(documents, 30) for query in judgements}
    qrels = [Qrel(query, one, grade) for query, grades in judgements.items() for one, grade in grades.items()]
    run = [
        ScoredDoc(query, one, -float(place))
        for query, found in rankings.items()
        for place, one in enumerate(found)
    ]
    expected = ir_measures.calc_aggregate([nDCG @ 10, R @ 5, R @ 10, RR @ 10], qrels, run)
    values = by_query(rankings, judgements)
    for name, measure in {"nDCG@10": nDCG @ 10, "R@5": R @ 5, "R@10": R @ 10, "MRR@10": RR @ 10}.items():
        assert values[name].mean() == pytest.approx(expected[measure]), name


def test_a_query_without_a_relevant_document_does_not_count() -> None:
    values = by_query({"a": ["x"], "b": ["y"]}, {"a": {"x": 1}, "b": {"y": 0}, "c": {"z": 1}})
    assert values["R@1"].tolist() == [1.0, 0.0]


def test_the_paired_test_is_exact_for_few_queries_and_close_to_it_for_many() -> None:
    first, second = np.array([1.0, 0.5, 1.0, 0.0, 1.0]), np.array([0.0, 0.5, 0.5, 0.0, 0.0])
    patterns = [sum(signs) for signs in itertools.product([-1, 1], [-0.5, 0.5], [-1, 1])]
    assert paired_p(first, second) == pytest.approx(sum(abs(one) >= 2.5 for one in patterns) / len(patterns))
    assert paired_p(first, first) == 1
    rng = np.random.default_rng(0)
    wide = rng.random(14)
    exact = np.abs(np.array(list(itertools.product([-1, 1], repeat=14))) @ (wide - 0.35))
    assert paired_p(wide, np.full(14, 0.35)) == pytest.approx(
        float((exact >= abs((wide - 0.35).sum()) - 1e-12).mean()), abs=0.02
    )


def test_the_interval_holds_the_mean_and_narrows_with_the_queries() -> None:
    few, many = (mean_with_interval(np.array([0.0, 1.0] * count)) for count in (10, 1000))
    for one in (few, many):
        assert one.low < one.mean == 0.5 < one.high
    assert many.high - many.low < (few.high - few.low) / 5


@pytest.fixture
def judged(tmp_path: Path) -> list[str]:
    """An index, and the options that name its queries and judgements."""
    index = tmp_path / "i.mqi"
    built(
        index,
        article_set(tmp_path / "a.xml", *(article(n, f"About zalo{n} and pain.") for n in range(1, 30))),
    )
    queries, qrels = tmp_path / "queries.jsonl", tmp_path / "qrels.tsv"
    queries.write_text("".join(f'{{"_id": "q{n}", "text": "zalo{n}?"}}\n' for n in range(1, 11)), "utf-8")
    rows = [f"q{n}\t{n if n < 9 else 29}\t1" for n in range(1, 11)]
    qrels.write_text("\n".join(["query-id\tcorpus-id\tscore", *rows]), "utf-8")
    return [str(index), "--queries", str(queries), "--qrels", str(qrels)]


def test_the_command_prints_recall_with_its_interval(
    judged: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["index", "eval", *judged, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["queries"] == 10
    assert found["rankings"]["auto"]["R@1"]["mean"] == 0.8
    assert found["rankings"]["auto"]["MRR@10"]["low"] < 0.8
    assert main(["index", "eval", *judged]) == 0
    assert "R@1       0.800   95% interval" in capsys.readouterr().out
    for words, message in {
        (*judged[:1], "--queries", "no.jsonl", *judged[3:]): "--queries: there is no file no.jsonl",
        (*judged, "--compare", "words"): "name two or more",
        (*judged, "--compare", "words,vectors"): "no vectors lie beside it",
        (*judged[:3], "--qrels", judged[2]): "queries.jsonl:1: no judgement",
    }.items():
        assert message in refused(capsys, "index", "eval", *words), words


def test_bench_measures_and_finds_its_own_records(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["index", "bench", "--records", "300", "--queries", "20", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["records"], found["R@1"]) == (300, 1.0)
    assert found["records_a_second"] > 0
    assert found["query_p95_ms"] >= found["query_p50_ms"] > 0
