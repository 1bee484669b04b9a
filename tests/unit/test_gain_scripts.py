"""The scripts that measure gains: their recipes are valid configurations, and a gain is paired by seed."""

import sys
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


class StoppedError(Exception):
    """Instead of a fit."""


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    monkeypatch.setattr(sys, "path", [str(EXAMPLES), *sys.path])
    import gain_recipes
    import measured_gains

    return measured_gains, gain_recipes


def test_every_recipe_is_a_valid_configuration(
    scripts: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medqlora.config.check import check_options
    from medqlora.config.command_options import own_options
    from medqlora.config.words import CommandLine

    _, gain_recipes = scripts
    checked = []

    def instead(command: str, words: list[str]) -> None:
        checked.append(command)
        own = (
            ("space", "trials", "out", "workers", "search_seed") if command == "tune" else own_options("fit")
        )
        check_options("fit", CommandLine.parse(words).without(*own).words, files=True)
        raise StoppedError

    monkeypatch.setattr(gain_recipes, "done_by", instead)
    settings = gain_recipes.Settings(
        labelled=20, artificial=20, rare=20, rare_dev=20, folded=20, searched=20, dev=10, test=10
    )
    for number, recipe in enumerate(gain_recipes.recipes(settings)):
        folder = tmp_path / str(number)
        folder.mkdir()
        with pytest.raises(StoppedError):
            recipe.run(folder, 3)
    assert sorted(set(checked)) == ["fit", "tune"]
    names = {recipe.name for recipe in gain_recipes.recipes(settings)}
    assert {first for _, first, _ in gain_recipes.comparisons()} - names == {
        "out of fold, five folds",  # rows of jobs with other names
        "average of the last three, constant rate",
    }


def test_maybe_is_as_rare_in_every_set(scripts: tuple[Any, Any], tmp_path: Path) -> None:
    import json

    _, gain_recipes = scripts
    files = gain_recipes._rare(tmp_path, gain_recipes.Settings(rare=60, rare_dev=20, rare_test=40), 1)
    for name, size in (("train", 60), ("dev", 20), ("test", 40)):
        answers = [json.loads(line)["answer"] for line in Path(files[name]).read_text().splitlines()]
        assert (len(answers), answers.count("maybe")) == (size, size // 20)


def test_a_gain_is_the_mean_over_seeds_that_both_have_with_students_interval(
    scripts: tuple[Any, Any], tmp_path: Path
) -> None:
    measured_gains, _ = scripts
    first, second = {0: 0.80, 1: 0.76, 2: 0.85, 7: 0.1}, {2: 0.79, 1: 0.75, 0: 0.72, 9: 0.9}
    rows = [
        {"recipe": name, "seed": seed, "steps": 1, "accuracy": value, "macro_f1": value, "base": 0.25}
        for name, values in (("artificial, then labelled", first), ("labelled alone", second))
        for seed, value in values.items()
    ]
    differences = [100 * (first[seed] - second[seed]) for seed in (0, 1, 2)]
    interval = stats.ttest_1samp(differences, 0).confidence_interval()
    expected = f"| 3 | {sum(differences) / 3:+.1f} [{interval.low:+.1f}, {interval.high:+.1f}] |"
    assert expected in measured_gains.table(rows)


def test_a_recipe_whose_line_a_kill_cut_is_measured_again(scripts: tuple[Any, Any], tmp_path: Path) -> None:
    measured_gains, gain_recipes = scripts
    (tmp_path / "results.jsonl").write_text(
        '{"rows": [{"recipe": "a", "seed": 0}]}\n{"rows": [{"recipe": "b", "se'
    )
    assert measured_gains.done(tmp_path) == [{"recipe": "a", "seed": 0}]
    recipe = gain_recipes.Recipe("family", "b", lambda folder, seed: [{"recipe": "b", "seed": seed}])
    measured_gains.keep(recipe, 4, tmp_path)
    first, again = measured_gains.done(tmp_path)
    assert first == {"recipe": "a", "seed": 0}
    assert (again["recipe"], again["seed"], again["job"]) == ("b", 4, "b")


def test_results_of_other_settings_are_not_mixed(scripts: tuple[Any, Any], tmp_path: Path) -> None:
    measured_gains, _ = scripts
    measured_gains.hold_to({"rate": 1e-3}, tmp_path / "gains")
    measured_gains.hold_to({"rate": 1e-3}, tmp_path / "gains")
    with pytest.raises(SystemExit, match="other settings"):
        measured_gains.hold_to({"rate": 2e-3}, tmp_path / "gains")
