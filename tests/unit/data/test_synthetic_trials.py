"""The embedded data: the same by seed, answered by the context alone, without a name in common between sets."""

import hashlib
import re
from collections import Counter

import pytest

from medqlora.data import SyntheticTrials
from medqlora.data.sources.synthetic_trials import pretraining_trials
from medqlora.errors import InputError
from medqlora.evaluation import TrainingTrace, overlap
from medqlora.records import Record, Splits


@pytest.fixture(scope="module")
def splits() -> Splits:
    return SyntheticTrials().read()


def invented(records: list[Record]) -> set[str]:
    """The invented names: drug, outcome and condition stand at fixed places of the question."""
    names: set[str] = set()
    for record in records:
        words = re.findall(r"\w+", record.question)
        names |= {words[1], words[3], words[-1]}
    return names


def test_the_same_seed_gives_the_same_questions_and_another_gives_others(splits: Splits) -> None:
    assert SyntheticTrials().read() == splits
    assert SyntheticTrials(seed=1).read().test[0].question != splits.test[0].question


def test_no_invented_name_is_in_two_sets_or_in_the_pretraining_texts(splits: Splits) -> None:
    sets = [invented(records) for records in (*splits, list(pretraining_trials(500)))]
    for number, names in enumerate(sets):
        assert len(names) > 50
        assert all(names.isdisjoint(other) for other in sets[number + 1 :])


def test_the_contamination_check_finds_nothing_of_the_training_set_in_the_test_set(splits: Splits) -> None:
    assert not overlap(TrainingTrace.of(splits.train), splits.test).contaminated


def test_no_answer_has_more_than_45_percent(splits: Splits) -> None:
    for records in splits:
        assert max(Counter(record.answer for record in records).values()) <= 0.45 * len(records)


def test_a_classifier_of_the_questions_alone_is_no_better_than_the_majority_by_more_than_3_points(
    splits: Splits,
) -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.naive_bayes import MultinomialNB

    def accuracy(model: object, of: str) -> float:
        def texts(records: list[Record]) -> list[str]:
            return [" ".join(record.contexts) if of == "contexts" else record.question for record in records]

        features = TfidfVectorizer(ngram_range=(1, 3)).fit(texts(splits.train))
        fitted = model.fit(  # type: ignore[attr-defined]
            features.transform(texts(splits.train)), [record.answer for record in splits.train]
        )
        return float(
            fitted.score(features.transform(texts(splits.test)), [record.answer for record in splits.test])
        )

    majority = max(Counter(record.answer for record in splits.test).values()) / len(splits.test)
    for model in (MultinomialNB(), LogisticRegression()):
        assert accuracy(model, "questions") <= majority + 0.03
    assert (
        accuracy(LogisticRegression(), "contexts") > 0.9
    )  # the same classifier can, where there is something


def test_answers_of_the_pretraining_texts_tell_nothing_of_their_findings() -> None:
    """A finding is followed by each answer about as often."""
    counts = Counter(
        record.answer for record in pretraining_trials(6000) if "unchanged" in record.contexts[1]
    )
    assert len(counts) == 3
    assert all(abs(count / counts.total() - 1 / 3) < 0.06 for count in counts.values())


def test_a_size_below_one_is_told_with_its_option() -> None:
    with pytest.raises(InputError, match=r"--data\.source\.train is 0"):
        SyntheticTrials(train=0)


def test_the_demos_own_trials_stay_as_they_were() -> None:
    digest = hashlib.sha256()
    splits = SyntheticTrials(train=50, dev=10, test=10).read()
    for record in [*splits.train, *splits.dev, *splits.test, *pretraining_trials(50)]:
        texts = (record.id, record.question, *record.contexts, str(record.answer), record.long_answer)
        digest.update("\n".join([*texts, *record.topics, record.where]).encode())
    assert digest.hexdigest()[:16] == "c33aec7f34d2c25a"
    assert "difficulty" not in SyntheticTrials().fingerprint()  # runs from before the option go on


def test_a_harder_abstract_also_tells_what_was_not_asked_with_another_result() -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    hard = SyntheticTrials(difficulty=3).read()
    plain = SyntheticTrials().read()
    assert [record.question for record in hard.test[:1]] == [record.question for record in plain.test[:1]]
    assert [record.answer for record in hard.test] == [record.answer for record in plain.test]
    texts = [record.contexts[1] for record in hard.train]
    for mark, share in (("arm it was", 0.3), ("Besides, the", 0.3)):
        assert abs(sum(mark in text for text in texts) / len(texts) - share) < 0.05
    assert not overlap(TrainingTrace.of(hard.train), hard.test).contaminated
    sets = [invented(records) for records in hard]
    assert sets[0].isdisjoint(sets[2])
    # what a bag of words can tell of the plain abstracts, it can't of these
    features = TfidfVectorizer(ngram_range=(1, 3)).fit(texts)
    fitted = LogisticRegression().fit(features.transform(texts), [record.answer for record in hard.train])
    test = features.transform([record.contexts[1] for record in hard.test])
    assert fitted.score(test, [record.answer for record in hard.test]) < 0.9
    with pytest.raises(InputError, match=r"--data\.source\.difficulty is 4: give 0 to 3"):
        SyntheticTrials(difficulty=4)
