"""Trains the topic classifier of a library, with scikit-learn (the extra `library`)."""

from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np

from medqlora.errors import InputError
from medqlora.inference.calibration import calibrate
from medqlora.inference.topic_router import Array, TopicRouter, routed_text
from medqlora.records import Prediction, Record

#: an adapter with fewer questions gets none: their share can't be calibrated
FEWEST = 10
_SPLITS, _WORDS = 5, 20_000


class Trained(NamedTuple):
    """A trained classifier; `remarks` says what it can't do, a line each. Without two topics there is none."""

    router: TopicRouter | None
    remarks: tuple[str, ...]


def train_router(
    records: Sequence[Record], names: Sequence[str], general: str, target_risk: float = 0.1
) -> Trained:
    """Trains and calibrates the classifier.

    The words' weights and the regression are fitted on all questions. Temperature and threshold come from out-of-fold
    predictions of five stratified folds, whose words are weighed without them: a specialised adapter gets a question
    from the confidence on from which at most `target_risk` of the questions were assigned wrongly.

    Args:
        records: the questions, each once.
        names: the adapter that each belongs to.
        general: the adapter that takes every other question.
        target_risk: largest share of wrong assignments.

    Raises:
        InputError: scikit-learn is not installed.
    """
    if find_spec("sklearn") is None:
        raise InputError(
            "library: scikit-learn is not installed, which learns the topics: pip install -e '.[library]'"
        )
    counts = Counter(names)
    few = sorted(name for name in counts if name != general and counts[name] < FEWEST)
    remarks = [
        f"{name} gets no question: {counts[name]} of its topics' are known, {FEWEST} are the least"
        for name in few
    ]
    kept = [general if name in few else name for name in names]
    if len(set(kept)) < 2 or min(Counter(kept).values()) < FEWEST:
        remarks.append(
            f"every question goes to {general}: there are too few questions of two adapters' topics"
        )
        return Trained(None, tuple(remarks))
    texts = [routed_text(record) for record in records]
    classes = sorted(set(kept))
    try:
        out_of_fold = _out_of_fold(texts, kept)
    except ValueError:  # no word occurs in two questions
        return Trained(
            None, (*remarks, f"every question goes to {general}: the known questions share no words")
        )
    predictions = [
        Prediction(record.id, name, tuple(classes), tuple(map(float, row)), (1,) * len(classes))
        for record, name, row in zip(records, kept, out_of_fold, strict=True)
    ]
    calibration = calibrate(predictions, target_risk)
    vocabulary, idf, coefficients, intercepts = _fitted(texts, kept, classes)
    router = TopicRouter(tuple(classes), general, vocabulary, idf, coefficients, intercepts, calibration)
    if calibration.threshold > 1:
        remarks.append(
            f"every question goes to {general}: no confidence keeps wrong assignments at {target_risk:.0%}"
        )
    return Trained(router, tuple(remarks))


def _fitted(
    texts: Sequence[str], names: Sequence[str], classes: Sequence[str]
) -> tuple[dict[str, int], Array, Array, Array]:
    """Vocabulary, idf, coefficients and intercepts, a row a class also where there are two.

    A word of a single question is left out: in no other question would it say anything.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    words = TfidfVectorizer(sublinear_tf=True, min_df=2, max_features=_WORDS)
    features = words.fit_transform(texts)
    model = LogisticRegression(C=10.0, max_iter=2000).fit(features, names)
    if list(model.classes_) != list(classes):  # no assert: python -O would leave it out
        raise RuntimeError(f"the classes are {list(model.classes_)}, not {list(classes)}")
    coefficients, intercepts = np.asarray(model.coef_), np.asarray(model.intercept_)
    if len(classes) == 2:  # the log-odds of the second class alone
        coefficients = np.vstack([np.zeros_like(coefficients), coefficients])
        intercepts = np.concatenate([np.zeros(1), intercepts])
    vocabulary = {str(word): int(place) for word, place in words.vocabulary_.items()}
    return vocabulary, np.asarray(words.idf_), coefficients, intercepts


def _out_of_fold(texts: Sequence[str], names: Sequence[str]) -> Array:
    """log p of each class for each text, by a classifier that did not see it, shape (texts, classes)."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(
        TfidfVectorizer(sublinear_tf=True, min_df=2, max_features=_WORDS),
        LogisticRegression(C=10.0, max_iter=2000),
    )
    folds = StratifiedKFold(_SPLITS, shuffle=True, random_state=0)
    found = cross_val_predict(model, list(texts), list(names), cv=folds, method="predict_log_proba")
    return np.asarray(found)
