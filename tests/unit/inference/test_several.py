"""Several adapters on one base model: each answers as PEFT runs it alone; and ensembles as arithmetic."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from served import trained_adapter

from medqlora.commands.asking import Asking, decoding_of
from medqlora.config.model import ModelOptions
from medqlora.errors import InputError
from medqlora.inference import Predictor
from medqlora.inference.decoding.self_test import why_not
from medqlora.inference.out_of_fold import out_of_fold
from medqlora.inference.several import PassLimits, SeveralAdapters, mean_log_probabilities
from medqlora.models.adapters.combination import combine
from medqlora.records import Encoded, Prediction, Record
from medqlora.utils.progress import Bar

LABELS = ("yes", "no", "maybe")
SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
#: name → LoRA's options: ranks, targets and scalings differ
ADAPTERS: dict[str, dict[str, Any]] = {
    "small": {},
    "wide": {"r": 8, "lora_alpha": 40, "target_modules": SEVEN},
    "late": {"r": 3, "lora_alpha": 12, "use_rslora": True, "target_modules": ["gate_proj", "o_proj"]},
    "dora": {"use_dora": True},
    "head": {"target_modules": ["v_proj", "lm_head"]},
}
QUESTIONS = [
    Record(f"q{number}", f"Does drug {number} help?", ("It did. " * (1 + 5 * number % 12),), labels=LABELS)
    for number in range(4)
]


@pytest.fixture(scope="module")
def adapters(tiny_bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """The folder of an adapter, made at its first use."""
    root = tmp_path_factory.mktemp("adapters")

    def folder(name: str) -> str:
        seed = list(ADAPTERS).index(name)
        if not (root / name).exists():
            trained_adapter(tiny_bases["llama"], root / name, threshold=0.0, seed=seed, **ADAPTERS[name])
        return str(root / name)

    return folder


@pytest.fixture(scope="module")
def alone(adapters: Callable[[str], str]) -> Callable[[str | None], list[Prediction]]:
    """The predictions of an adapter that is loaded alone, by PEFT's forward and transformers' `generate`."""
    known: dict[str | None, list[Prediction]] = {}

    def predictions(name: str | None) -> list[Prediction]:
        if name not in known:
            predictor = Predictor.load(
                adapters(name or "small"),
                device="cpu",
                max_new_tokens=6,
                make_engine=lambda model, device: None,
            )
            known[name or "small"] = predictor.predict(QUESTIONS)
            with predictor.model.disable_adapter():
                known[None] = predictor.predict(QUESTIONS)
        return known[name]

    return predictions


def load(*folders: str, **options: Any) -> SeveralAdapters:
    return SeveralAdapters.load(folders, device="cpu", generate=True, max_new_tokens=6, **options)


def same(found: Sequence[Prediction], expected: Sequence[Prediction]) -> None:
    assert [one.text for one in found] == [one.text for one in expected]
    for mine, other in zip(found, expected, strict=True):
        assert mine.logprobs == pytest.approx(other.logprobs, abs=1e-5)


def test_each_adapter_answers_as_peft_runs_it_alone_whatever_was_asked_before(
    adapters: Callable[[str], str], alone: Callable[[str | None], list[Prediction]]
) -> None:
    """Back and forth, with the bare base model between, and with an adapter that is loaded later on other layers."""
    names = ("small", "wide", "late")
    assert len({str([one.logprobs for one in alone(name)]) for name in (*names, None)}) == 4
    several = load(adapters("small"), adapters("wide"), limits=PassLimits(100))
    assert several.engine is not None
    assert why_not(several.engine) is None
    for name in ("wide", "small", None, "wide", "late", "small", None, "late", "wide"):
        if name == "late":
            several.add(adapters(name))
        found = several.predict(None if name is None else adapters(name), QUESTIONS)
        same(found, alone(name))
    assert several.engine is not None
    others = load(*map(adapters, reversed(names)), limits=PassLimits(100))
    for name in (*names, None):  # none of them is special for having been the first
        folder = None if name is None else adapters(name)
        assert several.predict(folder, QUESTIONS) == others.predict(folder, QUESTIONS)


@pytest.mark.parametrize("odd", ["dora", "head"])
def test_an_adapter_that_the_engine_cannot_run_takes_all_to_pefts_forward(
    odd: str, adapters: Callable[[str], str], alone: Callable[[str | None], list[Prediction]]
) -> None:
    several = load(adapters("wide"))
    same(several.predict(adapters("wide"), QUESTIONS), alone("wide"))
    assert several.engine is not None
    several.add(adapters(odd))
    assert several.engine is None
    for name in (odd, "wide", None):
        same(several.predict(None if name is None else adapters(name), QUESTIONS), alone(name))
    assert load(adapters(odd), adapters("wide")).engine is None


@pytest.mark.parametrize("odd", [{"bias": "lora_only"}, {"trainable_token_indices": [5, 6, 300]}])
def test_an_adapter_that_changes_the_base_model_for_the_others_stands_alone(
    odd: dict[str, Any], tiny_bases: dict[str, Path], tmp_path: Path
) -> None:
    """PEFT would run the others with the first one's biases, and can't load one beside trained tokens."""
    plain, changing = (
        str(trained_adapter(tiny_bases["qwen2"], tmp_path / name, threshold=0.0, seed=1, **options))
        for name, options in (("plain", {}), ("changing", odd))
    )
    for folders, whose in (
        ((plain, changing), "its"),
        ((changing, plain), "of the adapter that was loaded first"),
    ):
        with pytest.raises(InputError, match=f"{whose}.*replaces weights of the base model"):
            load(*folders)
    assert len(load(changing).predict(changing, QUESTIONS)) == len(QUESTIONS)


def test_a_combination_is_asked_in_the_place_of_a_member(adapters: Callable[[str], str]) -> None:
    found = []
    folders = [adapters("small"), adapters("wide")]
    for decoding in ("auto", "transformers"):
        several = load(*folders, decoding=decoding)
        assert (several.engine is None) == (decoding == "transformers")
        several.predict(folders[0], QUESTIONS)
        made = combine(several.predictor.model, several.names(folders), (0.5, 0.5), "cat")
        with several.asked(folders[0], made.name) as predictor:
            found.append(predictor.predict(QUESTIONS))
    same(*found)
    assert found[0] != several.predict(folders[0], QUESTIONS)


@pytest.mark.parametrize(
    ("options", "decoding"),
    [
        (ModelOptions(), "auto"),
        (ModelOptions(engine="native"), "transformers"),
        (ModelOptions(decoding="transformers"), "transformers"),
    ],
)
def test_what_forces_transformers_in_a_test_does_so_for_several_adapters(
    options: ModelOptions, decoding: str
) -> None:
    built: Any = SimpleNamespace(model=SimpleNamespace(options=options))
    assert decoding_of(built) == decoding


def test_progress_counts_the_answers_of_all_adapters(adapters: Callable[[str], str]) -> None:
    seen: list[float] = []

    class Seen(Bar):
        def update(self, done: float, note: str | None = None, *, share: float | None = None) -> None:
            super().update(done, note, share=share)
            seen.append(done)

    ask = Asking(load(adapters("small"), adapters("wide"), limits=PassLimits(60)), Seen("", 12, shown=False))
    for folder in (adapters("small"), None, adapters("wide")):
        ask(folder, QUESTIONS)
    assert seen == sorted(seen)
    assert {4.0, 8.0, 12.0} < set(seen)
    assert seen[-1] == 12
    assert any(0 < done < 4 for done in seen)


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
