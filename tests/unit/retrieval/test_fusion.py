"""Reciprocal rank fusion, and what settles its ties."""

from types import SimpleNamespace
from typing import cast

import pytest

from medqlora.retrieval.fusion import reciprocal_rank_fusion
from medqlora.retrieval.search import Hit, walked
from medqlora.retrieval.store import Found


def ranked(*items: int) -> list[tuple[int, float]]:
    """Items with scores that fall evenly."""
    return [(item, float(-place)) for place, item in enumerate(items)]


def order(*rankings: list[tuple[int, float]]) -> list[int]:
    return [item for item, _ in reciprocal_rank_fusion(rankings)]


def test_fusion_adds_reciprocal_ranks() -> None:
    fused = dict(reciprocal_rank_fusion([ranked(4, 2, 9), ranked(2, 7)]))
    assert fused == pytest.approx({2: 1 / 62 + 1 / 61, 4: 1 / 61, 9: 1 / 63, 7: 1 / 62})
    assert order(ranked(4, 2, 9), ranked(2, 7)) == [2, 4, 7, 9]


def test_of_swapped_neighbours_the_one_that_is_clearer_comes_first_whatever_the_units() -> None:
    clear, narrow = [(4, 20.0), (2, 11.0), (9, 10.0)], [(2, 0.61), (4, 0.60), (7, 0.1)]
    assert order(clear, narrow)[:2] == order(narrow, clear)[:2] == [4, 2]
    # the other way about, and in other units
    clear, narrow = [(2, 0.9), (4, 0.2), (7, 0.1)], [(4, 2000.0), (2, 1990.0), (9, 1000.0)]
    assert order(clear, narrow)[:2] == order(narrow, clear)[:2] == [2, 4]


def test_a_rank_counts_before_any_score() -> None:
    near, far = [(1, 10.0), (2, 9.9), (3, 0.0)], [(2, 1.0), (3, 0.99), (1, 0.0)]
    assert order(near, far) == [2, 1, 3]


def test_of_equal_scores_the_last_ranking_decides_and_then_the_number() -> None:
    assert order([(5, 1.0)], [(3, 1.0)]) == [3, 5]
    assert order(ranked(4, 2), ranked(2, 4)) == [2, 4]
    assert order([(8, 1.0)], []) == [8]
    assert reciprocal_rank_fusion([]) == []


def test_a_walk_gives_each_passage_once_though_deeper_searches_rank_them_anew() -> None:
    """Fusion of more candidates changes the first places: none of the passages before is lost or comes again."""
    words = [(number, 100.0 - number) for number in range(300)]
    vectors = [(number, 1 - place / 300) for place, number in enumerate(range(299, -1, -1))]

    def search(count: int) -> list[Hit]:
        size = max(count, 100)
        fused = reciprocal_rank_fusion([words[:size], vectors[:size]])
        return [Hit(cast(Found, SimpleNamespace(id=number)), score, 1.0) for number, score in fused[:count]]

    assert search(256)[:64] != search(64)  # what the promise is about
    found = [hit.passage.id for hit in walked(search, 1000)]
    assert sorted(found) == list(range(300))
    assert found[:16] == [hit.passage.id for hit in search(16)]
