"""The model card: huggingface_hub reads its front matter; it claims no calibration that the questions can't show."""

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from medqlora.artifacts.adapter_record import AdapterRecord
from medqlora.artifacts.card import model_card
from medqlora.inference import calibrate
from medqlora.records import YES_NO_MAYBE, Prediction


def record(base: str = "unsloth/llama-3-8b-bnb-4bit", **changed: Any) -> AdapterRecord:
    values: Any = {
        "base": base,
        "backend": "Transformers",
        "lora": {"r": 16},
        "prompt": {"name": "medical", "sha256": "0" * 64, "template": {"question": "{question}"}},
        "data": {"name": "PubMedQA", "hub": "qiaojin/PubMedQA"},
        "test_questions": {},
        "training": {"step": 3},
        "scores": {"val/accuracy": 0.5, "val/macro_f1": 0.4, "val/loss": 1.0},
        "calibration": None,
        "parameters": {"trainable": 10, "total": 100},
        "versions": {"torch": "2.13"},
        "created": "2026-01-01",
    }
    values.update(changed)
    return values


def validation(count: int, wrong: int = 0) -> list[Prediction]:
    return [
        Prediction(
            str(n), YES_NO_MAYBE[(n % 2) ^ (n < wrong)], YES_NO_MAYBE, (-0.5 * (n % 2), -0.3, -3.0 - n % 5)
        )
        for n in range(count)
    ]


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        ("unsloth/llama-3-8b-bnb-4bit", {"base_model": "unsloth/llama-3-8b-bnb-4bit", "license": "llama3"}),
        ("Qwen/Qwen3-8B", {"base_model": "Qwen/Qwen3-8B", "license": "apache-2.0"}),
        (
            "someone/else",
            {
                "license": "other",
                "license_name": "as-the-base-model",
                "license_link": "https://huggingface.co/someone/else",
            },
        ),
        (
            "/home/a user/Bases/My base: 1",
            {"base_model": "My-base-1", "license": "other", "license_link": "LICENSE"},
        ),
        ("./no", {"base_model": "no", "license": "other"}),
    ],
)
def test_the_hubs_reader_finds_base_data_metrics_and_licence(base: str, expected: dict[str, str]) -> None:
    data = ModelCard(model_card(record(base))).data.to_dict()
    assert {name: data[name] for name in expected} == expected
    assert data["datasets"] == ["qiaojin/PubMedQA"]
    assert data["metrics"] == ["accuracy", "f1"]
    assert data["library_name"] == "peft"
    assert "/home" not in str(data)


def test_a_local_bases_own_card_says_under_which_licence(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: gemma\n---\n# A base\n")
    assert ModelCard(model_card(record(str(tmp_path)))).data.license == "gemma"
    (tmp_path / "README.md").write_text("---\nlicense: [1, {\n---\n")
    assert ModelCard(model_card(record(str(tmp_path)))).data.license == "other"


def test_own_data_has_its_name_and_free_answers_their_metrics() -> None:
    scores = {"val/accuracy": 0.0, "val/token_f1": 0.4, "val/rouge_l": 0.3}
    data = ModelCard(model_card(record(data={"name": "JSONLines", "hub": None}, scores=scores))).data
    assert data.datasets == ["JSONLines"]
    assert data.metrics == ["accuracy", "f1", "rouge"]


def test_two_questions_calibrate_nothing_and_the_card_says_so() -> None:
    text = model_card(record(calibration=calibrate(validation(2)).to_json()))
    assert "Not calibrated: 2 validation questions are too few, 20 are the least" in text
    assert "of 2 were wrong" not in text


def test_a_temperature_that_was_not_fitted_is_not_told_as_one() -> None:
    text = model_card(record(calibration=calibrate(validation(40)).to_json()))
    assert (
        "On the 40 validation questions: temperature 1 (not fitted: all of them were decided rightly)" in text
    )
    assert "0 of 40 were wrong" in text
