"""Scores of rankings: recall, nDCG and reciprocal rank, with intervals and paired tests."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from medqlora.evaluation.statistics.intervals import RESAMPLES, percentile_interval

#: query → document → relevance, 0 for none
Judgements = Mapping[str, Mapping[str, int]]
#: query → documents, best first
Rankings = Mapping[str, Sequence[str]]
#: draws of the paired test
DRAWS = 10_000
#: ranks at which recall is given
CUTOFFS = (1, 5, 10, 100)


class Measured(NamedTuple):
    """A mean over queries: `low` and `high` are a 95% percentile bootstrap over queries."""

    mean: float
    low: float
    high: float


def recall_at(ranking: Sequence[str], relevant: Mapping[str, int], k: int) -> float:
    """Share of the relevant documents among the first `k`."""
    wanted = {one for one, grade in relevant.items() if grade > 0}
    return len(wanted.intersection(ranking[:k])) / len(wanted)


def ndcg_at(ranking: Sequence[str], relevant: Mapping[str, int], k: int) -> float:
    """Normalised discounted cumulative gain of the first `k`, with the grades as gains, as trec_eval's ndcg_cut.

    Järvelin and Kekäläinen 2002, https://doi.org/10.1145/582415.582418.
    """
    gain = _discounted([relevant.get(one, 0) for one in ranking[:k]])
    return gain / _discounted(sorted(relevant.values(), reverse=True)[:k])


def reciprocal_rank_at(ranking: Sequence[str], relevant: Mapping[str, int], k: int) -> float:
    """1 / rank of the first relevant document; 0 where none is among the first `k`."""
    for rank, one in enumerate(ranking[:k], 1):
        if relevant.get(one, 0) > 0:
            return 1 / rank
    return 0.0


def by_query(rankings: Rankings, judgements: Judgements) -> dict[str, NDArray[np.float64]]:
    """Metric → its value for each judged query, in the order of `judgements`."""
    judged = {
        query: grades for query, grades in judgements.items() if any(grade > 0 for grade in grades.values())
    }
    lists = [(rankings.get(query, ()), grades) for query, grades in judged.items()]
    values = {f"R@{k}": [recall_at(found, grades, k) for found, grades in lists] for k in CUTOFFS}
    values["nDCG@10"] = [ndcg_at(found, grades, 10) for found, grades in lists]
    values["MRR@10"] = [reciprocal_rank_at(found, grades, 10) for found, grades in lists]
    return {name: np.array(each) for name, each in values.items()}


def mean_with_interval(values: NDArray[np.float64], seed: int = 0) -> Measured:
    """The mean over queries, with its bootstrap interval.

    Raises:
        ValueError: there are no queries.
    """
    if not len(values):
        raise ValueError("no query has a relevant document")
    rng = np.random.default_rng(seed)
    means = [values[rng.integers(0, len(values), size=len(values))].mean() for _ in range(RESAMPLES)]
    low, high = percentile_interval(np.array(means))
    return Measured(float(values.mean()), low, high)


def paired_p(first: NDArray[np.float64], second: NDArray[np.float64], seed: int = 0) -> float:
    """Two-sided p of the paired randomization test on the difference of means.

    Signs of the differences are exchanged at random (Fisher's test; Smucker et al. 2007,
    https://doi.org/10.1145/1321440.1321528); 1 where no query differs.
    """
    differences = first - second
    differences = differences[differences != 0]
    if not len(differences):
        return 1.0
    observed = abs(differences.sum())
    if len(differences) <= 13:  # all sign patterns
        signs = np.array(np.meshgrid(*[[-1.0, 1.0]] * len(differences))).reshape(len(differences), -1).T
        return float((np.abs(signs @ differences) >= observed - 1e-12).mean())
    rng = np.random.default_rng(seed)
    hits = 0
    for _ in range(0, DRAWS, 500):
        signs = rng.choice([-1.0, 1.0], size=(500, len(differences)))
        hits += int((np.abs(signs @ differences) >= observed - 1e-12).sum())
    return (hits + 1) / (DRAWS + 1)


def _discounted(gains: Sequence[int]) -> float:
    return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, 1))
