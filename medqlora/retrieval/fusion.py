"""Fusion of rankings: reciprocal rank fusion, whose frequent ties are settled by the scores."""

from collections.abc import Sequence
from typing import TypeAlias

#: (item, score), best first; the scores of two rankings may have different units
Ranked: TypeAlias = Sequence[tuple[int, float]]
#: constant of reciprocal rank fusion, Cormack et al. 2009, https://doi.org/10.1145/1571941.1572114
FUSION_K = 60


def reciprocal_rank_fusion(rankings: Sequence[Ranked], k: int = FUSION_K) -> list[tuple[int, float]]:
    """(item, score) with the score sum over rankings of 1 / (k + rank), ranks from 1; best first.

    Two rankings that swap two neighbours give both the same sum. Of equal sums the item with the higher sum of scores
    comes first, each ranking's scores scaled to 0 for its last item and 1 for its first; then the item that the last
    ranking has first, then the lower number.

    Cormack et al. 2009, https://doi.org/10.1145/1571941.1572114. The scaled scores are those of Lee 1997,
    https://doi.org/10.1145/258525.258587.
    """
    sums: dict[int, float] = {}
    scaled: dict[int, float] = {}
    for ranking in rankings:
        best, least = (ranking[0][1], ranking[-1][1]) if ranking else (0.0, 0.0)
        for rank, (item, score) in enumerate(ranking, 1):
            sums[item] = sums.get(item, 0.0) + 1 / (k + rank)
            share = (score - least) / (best - least) if best > least else 1.0
            scaled[item] = scaled.get(item, 0.0) + share
    last = {item: rank for rank, (item, _) in enumerate(rankings[-1])} if rankings else {}
    return sorted(
        sums.items(), key=lambda pair: (-pair[1], -scaled[pair[0]], last.get(pair[0], len(last)), pair[0])
    )
