"""The topic classifier: the same probabilities as scikit-learn's, calibrated, and sure to abstain."""

import random
from pathlib import Path

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from medqlora.errors import InputError
from medqlora.inference.topic_router import TopicRouter, routed_text
from medqlora.inference.topic_training import train_router
from medqlora.records import Record

WORDS = {
    "heart": ["heart", "stroke", "aorta", "statin"],
    "tumour": ["tumour", "cancer", "biopsy", "lésion"],
    "general": ["knee", "skin", "eye", "ear"],
}


def questions(
    count: int, names: tuple[str, ...] = tuple(WORDS), blur: float = 0.0
) -> tuple[list[Record], list[str]]:
    draw = random.Random(0)
    records, owners = [], []
    for number in range(count):
        name = names[number % len(names)]
        said = draw.choice(list(WORDS)) if draw.random() < blur else name
        text = f"Does Drug-{number} help {' and '.join(draw.sample(WORDS[said], 2))}?"
        records.append(Record(f"q{number}", text))
        owners.append(name)
    return records, owners


@pytest.mark.parametrize("names", [("general", "heart"), ("general", "heart", "tumour")])
def test_probabilities_are_scikit_learns_at_the_fitted_temperature(names: tuple[str, ...]) -> None:
    records, owners = questions(120, names, blur=0.2)
    router = train_router(records, owners, "general").router
    assert router is not None
    words = TfidfVectorizer(sublinear_tf=True, min_df=2, max_features=20_000)
    model = LogisticRegression(C=10.0, max_iter=2000).fit(
        words.fit_transform(map(routed_text, records)), owners
    )
    asked = [*map(routed_text, records[:20]), "", "nothing known", "heart heart heart Skin"]
    wanted = model.predict_log_proba(words.transform(asked)) / router.calibration.temperature
    wanted = np.exp(wanted) / np.exp(wanted).sum(axis=1, keepdims=True)
    found = np.array([router.probabilities(text) for text in asked])
    np.testing.assert_allclose(found, wanted, atol=1e-9)
    assert router.names == tuple(model.classes_)


def test_a_clear_question_is_routed_and_an_unclear_one_goes_to_the_general_adapter() -> None:
    router = train_router(*questions(300), "general").router
    assert router is not None
    assert router.route(Record("a", "Does it help the heart, the aorta and a stroke?")).name == "heart"
    unclear = router.route(Record("b", "Does it help the heart of a tumour?"))
    assert unclear.name == "general"
    assert unclear.abstained
    assert router.route(Record("c", "What is the time?")).name == "general"
    assert not router.route(Record("d", "Does it help knee and skin?")).abstained


def test_topics_that_the_words_do_not_tell_are_never_routed() -> None:
    records, owners = questions(150, blur=1.0)
    trained = train_router(records, owners, "general")
    assert trained.router is not None
    assert sum(trained.router.route(record).name != "general" for record in records) < 15


def test_an_adapter_with_few_questions_gets_none_and_is_told() -> None:
    records, owners = questions(60)
    owners = [name if name != "tumour" or number < 9 else "general" for number, name in enumerate(owners)]
    trained = train_router(records, owners, "general")
    assert trained.router is not None
    assert trained.router.names == ("general", "heart")
    assert any("tumour gets no question" in remark for remark in trained.remarks)
    assert train_router(records[:8], owners[:8], "general").router is None


def test_a_saved_classifier_is_the_same_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    router = train_router(*questions(60), "general").router
    assert router is not None
    file, again = tmp_path / "router.npz", tmp_path / "again.npz"
    router.save(file)
    loaded = TopicRouter.load(file)
    loaded.save(again)
    assert file.read_bytes() == again.read_bytes()
    text = "Does it help the heart?"
    np.testing.assert_array_equal(loaded.probabilities(text), router.probabilities(text))
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(InputError, match="no topic classifier"):
        TopicRouter.load(file)
    np.savez(again, version=np.int64(1), text=np.array([object()], dtype=object))  # a pickle is not read
    with pytest.raises(InputError, match="no topic classifier"):
        TopicRouter.load(again)
