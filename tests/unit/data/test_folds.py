"""Folds: which ones a user names, and how a source without official ones is cut."""

from collections import Counter

import pytest

from medqlora.data import PubMedQA, SyntheticTrials
from medqlora.data.folds import check_has_folds, parse_folds, stratified_folds
from medqlora.errors import InputError


def test_folds_are_named_by_numbers_or_all() -> None:
    assert parse_folds("all") == tuple(range(10))
    assert parse_folds("7, 0,3") == (0, 3, 7)
    for wrong in ("", "10", "-1", "1,,2", "1,1", "x", "¹"):
        with pytest.raises(InputError, match="--folds"):
            parse_folds(wrong)


def test_the_folds_of_the_trials_hold_each_development_question_once_with_its_share_of_answers() -> None:
    whole = SyntheticTrials(train=80, dev=20, test=5).read()
    pool = {record.id for record in (*whole.train, *whole.dev)}
    dev: list[str] = []
    for fold in range(10):
        splits = SyntheticTrials(train=80, dev=20, test=5, fold=fold).read()
        ids = {record.id for record in splits.dev}
        assert {record.id for record in splits.train} == pool - ids
        assert splits.test == whole.test
        assert Counter(record.answer for record in splits.dev)["yes"] == 4
        dev += ids
    assert sorted(dev) == sorted(pool)


def test_without_a_fold_the_trials_and_their_fingerprint_are_as_before() -> None:
    assert "fold" not in SyntheticTrials().fingerprint()
    assert SyntheticTrials(fold=3).fingerprint()["fold"] == 3
    for wrong in (10, -1, True, "1"):
        with pytest.raises(InputError, match="fold"):
            SyntheticTrials(fold=wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="10 folds need 10"):
        SyntheticTrials(train=5, dev=0, fold=0)


def test_folds_of_equal_size_whatever_the_answers() -> None:
    records = SyntheticTrials(train=43, dev=0, test=1).read().train
    sizes = [len(fold) for fold in stratified_folds(records, 10, seed=1)]
    assert sum(sizes) == 43
    assert max(sizes) - min(sizes) == 1
    assert stratified_folds(records, 10, seed=1) == stratified_folds(records, 10, seed=1)


def test_a_source_without_folds_is_refused_by_name() -> None:
    check_has_folds(f"medqlora.data.{PubMedQA.__name__}")
    check_has_folds("somebody.elses.Source")
    with pytest.raises(InputError, match="PubMedQA or SyntheticTrials"):
        check_has_folds("medqlora.data.JSONLines")
