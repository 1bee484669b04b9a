"""The space of a search: what it takes, and that the test set can't be named."""

from pathlib import Path

import pytest

from medqlora.config.space import Choices, Interval, read_space, word
from medqlora.errors import InputError


def written(folder: Path, text: str) -> str:
    path = folder / "space.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_lists_and_intervals_are_read_flat_or_nested(tmp_path: Path) -> None:
    text = "model.learning_rate: {low: 1e-5, high: 1e-3, log: true}\nmodel:\n  lora:\n    r: [8, 16]\n"
    assert read_space(written(tmp_path, text)) == {
        "model.learning_rate": Interval(1e-5, 1e-3, True),
        "model.lora.r": Choices((8, 16)),
    }
    assert word("data.train_samples", None) == "--data.train_samples=null"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("data.test_samples: [1, 2]", "the test questions are no part of a search"),
        ("data.validation_samples: [5, 6]", "validate on other questions can't be compared"),
        ("data.topics: [C14, C04]", "validate on other questions can't be compared"),
        ("data.source.test: [a, b]", "a search takes plain options"),
        ("data.benchmarks: [a, b]", "a search takes plain options"),
        ("model.lora.rank: [8, 16]", "did you mean 'model.lora.r'"),
        ("model.lora.r: [8]", "two or more different values"),
        ("model.lora.r: 8", "give a list of values"),
        ("model.learning_rate: {low: 2, high: 1}", "low below high"),
        ("model.learning_rate: {low: 0, high: 1, log: true}", "low above 0"),
        ("model.learning_rate: {low: 0, high: 1, size: 3}", "has no 'size'"),
    ],
)
def test_what_no_search_can_try_is_told_with_its_line(tmp_path: Path, line: str, told: str) -> None:
    with pytest.raises(InputError, match=rf"space\.yaml:2: .*{told}"):
        read_space(written(tmp_path, f"# a space\n{line}\n"))
