"""Ensembles as arithmetic: the mean of log-probabilities, and which members answer a development question."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from served import trained_adapter

from medqlora.inference import Predictor
from medqlora.inference.out_of_fold import out_of_fold
from medqlora.inference.several import mean_log_probabilities
from medqlora.records import Encoded, Prediction, Record

LABELS = ("yes", "no", "maybe")


def scored(ident: str, *values: float) -> Prediction:
    return Prediction(ident, "yes", LABELS, values, (1, 1, 1))


def test_the_ensemble_is_the_normalized_geometric_mean_whatever_the_order_of_its_members() -> None:
    draw = np.random.default_rng(0)
    members = [[scored(f"q{n}", *map(float, draw.normal(size=3))) for n in range(20)] for _ in range(5)]
    found = mean_log_probabilities(members)
    for place, one in enumerate(found):
        shares = np.exp([member[place].logprobs for member in members])
        mean = np.prod(shares, axis=0) ** (1 / 5)
        assert one.probabilities == pytest.approx(mean / mean.sum())
    assert mean_log_probabilities(members[::-1]) == found
    assert mean_log_probabilities([members[0]]) == members[0]


def test_members_that_answered_other_questions_are_no_ensemble() -> None:
    with pytest.raises(ValueError, match="other questions"):
        mean_log_probabilities([[scored("a", 1, 2, 3)], [scored("b", 1, 2, 3)]])
    with pytest.raises(ValueError, match="member"):
        mean_log_probabilities([])


def test_a_development_question_is_answered_by_the_members_that_did_not_train_on_it() -> None:
    values = {"one": (0.0, -1.0, -2.0), "two": (-4.0, -1.0, -2.0)}
    asked: list[tuple[str | None, list[str]]] = []

    def predict(
        folder: str | None, records: Sequence[Record], examples: Mapping[str, Encoded] | None = None
    ) -> list[Prediction]:
        asked.append((folder, [record.id for record in records]))
        return [scored(record.id, *values[str(folder)]) for record in records]

    records = [Record(name, "?") for name in ("a", "b", "c", "d")]
    found = out_of_fold(predict, {"one": {"a", "d"}, "two": {"b", "d"}}, records, {})
    assert asked == [("one", ["b", "c"]), ("two", ["a", "c"])]
    by_id = {one.id: one.logprobs for one in found}
    assert by_id == {
        "a": values["two"],
        "b": values["one"],
        "c": (-2.0, -1.0, -2.0),
    }  # d was trained on by both


def test_predictions_are_of_the_adapter_that_peft_has_switched_on(
    tiny_bases: dict[str, Path], tmp_path: Path
) -> None:
    """As a program of the user's own switches adapters, by PEFT's methods on `Predictor.model`."""
    folders = [
        str(trained_adapter(tiny_bases["llama"], tmp_path / str(n), threshold=0.0, seed=n)) for n in range(2)
    ]
    records = [Record("q", "Does it help?", ("It did.",), labels=LABELS)]
    own, expected = (
        Predictor.load(one, device="cpu", generate=False).predict(records)[0].logprobs for one in folders
    )
    predictor = Predictor.load(folders[0], device="cpu", generate=False)
    assert predictor.engine is not None  # which reads an adapter once
    predictor.model.load_adapter(folders[1], "second")
    assert predictor.predict(records)[0].logprobs == own
    predictor.model.set_adapter("second")
    assert predictor.predict(records)[0].logprobs == pytest.approx(expected, abs=1e-4) != own
    predictor.model.set_adapter("default")
    assert predictor.predict(records)[0].logprobs == pytest.approx(own, abs=1e-4)
