"""The report's part on retrieved contexts, against figures worked out by hand."""

import math

import pytest

from medqlora.data.question_set import Evidence
from medqlora.evaluation.metrics.retrieved import fit_threshold, retrieval_block
from medqlora.evaluation.report.retrieval_page import leak_warning
from medqlora.records import Prediction

LABELS = ("yes", "no", "maybe")


def prediction(ident: str, gold: str, decided: str) -> Prediction:
    return Prediction(
        ident, gold, LABELS, tuple(math.log(0.8 if label == decided else 0.1) for label in LABELS)
    )


def evidence(found: bool, coverage: float) -> Evidence:
    return Evidence(found, int(found), 3, coverage)


def test_the_block_counts_what_retrieval_changed() -> None:
    gold = {"a": "yes", "b": "no", "c": "maybe", "d": "no"}
    retrieved = [prediction(ident, label, label) for ident, label in gold.items()]
    alone = [prediction(ident, label, "no") for ident, label in reversed(gold.items())]
    own = {
        "a": evidence(True, 0.9),
        "b": evidence(True, 0.8),
        "c": evidence(False, 0.2),
        "d": evidence(True, 0.7),
    }
    dev = [Evidence(True, 1, 3, 0.9, 0.9, 0.3), Evidence(True, 1, 3, 0.5, 0.5, 0.4)]
    block = retrieval_block(retrieved, {"question_alone": alone}, own, dev, {"exclude_source": False})
    assert block["conditions"]["retrieved_context"]["accuracy"] == 1.0
    assert block["conditions"]["question_alone"]["accuracy"] == 0.5
    difference = block["differences"]["question_alone"]
    assert (difference["difference"], difference["only_retrieved_right"], difference["only_other_right"]) == (
        0.5,
        2,
        0,
    )
    assert difference["mcnemar_p"] == 0.5  # 2 of 2 discordant pairs: 2 · 0.25
    assert (block["gold_recall"], block["excluded_passages"]) == (0.75, 3)
    assert {name: one["n"] for name, one in block["by_found"].items()} == {"found": 3, "not_found": 1}
    assert block["no_evidence"] is not None
    assert (block["no_evidence"]["threshold"], block["no_evidence"]["below"]["n"]) == (0.5, 1)
    assert leak_warning({"retrieval": block})
    assert not leak_warning({"retrieval": {**block, "exclude_source": True}})
    assert not leak_warning({})
    with pytest.raises(ValueError, match="not the same questions"):
        retrieval_block(retrieved, {"question_alone": alone[:3]}, own, dev, {})


def test_the_threshold_separates_own_articles_from_others_as_well_as_can_be() -> None:
    mixed = [Evidence(True, 0, 3, 0.9, own, other) for own, other in ((0.9, 0.2), (0.6, 0.7), (0.8, 0.1))]
    assert fit_threshold(mixed) == 0.6  # all own ones above it, two of three others below: no value has more
    assert fit_threshold([Evidence(False, 0, 3, 0.2, None, 0.2)]) is None
    assert fit_threshold([]) is None
