"""The scripts that measure gains: their recipes are valid configurations, and a gain is paired by seed."""

import sys
import zlib
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

    import gain_runs

    monkeypatch.setattr(gain_recipes, "done_by", instead)
    monkeypatch.setattr(gain_runs, "done_by", instead)
    settings = gain_recipes.Settings(
        labelled=20,
        more_labelled=30,
        artificial=20,
        rare=20,
        rare_dev=20,
        folded=20,
        searched=20,
        dev=10,
        test=10,
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


def test_the_control_of_two_stages_has_as_many_steps_and_less_than_an_epoch_more(
    scripts: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import json

    import gain_runs

    _, gain_recipes = scripts

    def instead(command: str, words: list[str]) -> None:
        raise StoppedError

    monkeypatch.setattr(gain_runs, "done_by", instead)
    settings = gain_recipes.Settings(labelled=30, more_labelled=50, artificial=90, dev=10, test=10)

    def steps_and_epoch(name: str) -> tuple[int, int]:
        """Steps by the configuration, and those of an epoch of its target set."""
        (recipe,) = (one for one in gain_recipes.recipes(settings) if one.name == name)
        folder = tmp_path / name
        folder.mkdir()
        with pytest.raises(StoppedError):
            recipe.run(folder, 3)
        given = json.loads((folder / "recipe.yaml").read_text(encoding="utf-8"))
        epoch = -(-given["data"]["source"]["init_args"]["train"] // 8)
        stages = given["data"].get("stages", [{"epochs": given["trainer"]["max_epochs"]}])
        sizes = {"artificial": -(-90 // 8)}
        return sum(stage["epochs"] * sizes.get(stage.get("name"), epoch) for stage in stages), epoch

    for target, epoch in (("labelled", 4), ("more labelled", 7)):
        both, _ = steps_and_epoch(f"artificial, then {target}")
        control, own_epoch = steps_and_epoch(f"{target} alone, as many steps")
        alone, _ = steps_and_epoch(f"{target} alone")
        assert own_epoch == epoch
        assert both <= control < both + epoch
        assert both - alone == 24  # two epochs of the artificial set


@pytest.mark.parametrize(
    ("only", "expected"),
    [
        (
            "more labelled",
            {
                "artificial, then more labelled",
                "more labelled alone",
                "more labelled alone, as many steps",
                "artificial alone",
            },
        ),
        ("balance loss", {"rare maybe, balance loss", "rare maybe"}),
        ("smoothing", {"labelled alone, label smoothing 0.1", "labelled alone"}),
    ],
)
def test_recipes_chosen_by_name_bring_those_they_are_compared_with(
    scripts: tuple[Any, Any], only: str, expected: set[str]
) -> None:
    measured_gains, gain_recipes = scripts
    assert {one.name for one in measured_gains.chosen(gain_recipes.Settings(), only)} == expected


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
    assert "| artificial, then labelled | 0-2, 7 | 1 |" in measured_gains.table(rows)


def test_a_gain_is_shown_where_its_interval_is_clear_of_0(scripts: tuple[Any, Any]) -> None:
    measured_gains, _ = scripts

    def shown(first: list[float], second: list[float], key: str = "accuracy") -> str:
        names = {"accuracy": ("rare maybe, balance loss", "rare maybe")}
        pair = names.get(key, ("out of fold, five folds", "validation of one fold"))
        scores = {"accuracy": 0.5, "macro_f1": 0.5, "steps": 1} if key == "accuracy" else {}
        rows = [
            {"recipe": name, "seed": seed, **scores, key: value}
            for name, values in zip(pair, (first, second), strict=True)
            for seed, value in enumerate(values)
        ]
        return str(measured_gains.table(rows).splitlines()[-1].split("|")[-3].strip())

    assert shown([0.9, 0.8, 0.85], [0.6, 0.51, 0.55]) == "accuracy gained"
    assert shown([0.6, 0.51, 0.55], [0.9, 0.8, 0.85]) == "accuracy lost"
    assert shown([0.9, 0.5, 0.85], [0.6, 0.8, 0.55]) == "no"
    assert shown([0.9], [0.1]) == "no"  # one seed shows nothing
    assert shown([0.5, 0.6], [0.6, 0.7]) == "no"  # nor do two whose differences are the same up to rounding
    assert shown([0.01, 0.02, 0.01], [0.06, 0.06, 0.07], "error") == "error smaller"


def test_the_p_of_a_gain_is_adjusted_for_all_comparisons_of_its_score(scripts: tuple[Any, Any]) -> None:
    measured_gains, _ = scripts
    of = {
        "artificial, then labelled": ([0.80, 0.76, 0.85], [0.7, 0.7, 0.8]),
        "labelled alone": ([0.72, 0.70, 0.79], [0.69, 0.7, 0.7]),
        "labelled alone, label smoothing 0.1": ([0.73, 0.68, 0.79], [0.6, 0.65, 0.74]),
        "out of fold, five folds": [0.01, 0.02, 0.01],
        "validation of one fold": [0.06, 0.06, 0.07],
        "rate found by tune": ([0.9], [0.9]),
        "rate of the demo, 3e-3": ([0.8], [0.8]),
    }
    rows = [
        {"recipe": name, "seed": seed, "steps": 1, "accuracy": accuracy, "macro_f1": macro}
        for name, values in of.items()
        if isinstance(values, tuple)
        for seed, (accuracy, macro) in enumerate(zip(*values, strict=True))
    ] + [
        {"recipe": name, "seed": seed, "error": value}
        for name, values in of.items()
        if isinstance(values, list)
        for seed, value in enumerate(values)
    ]

    def p(first: str, second: str, score: int) -> float:
        return float(stats.ttest_rel(of[first][score], of[second][score]).pvalue)

    names = ["artificial, then labelled", "labelled alone, label smoothing 0.1"]
    adjusted = []
    for score in (0, 1):  # Holm of two: the smaller one twice, the larger one never below it
        small, large = sorted((p(names[0], "labelled alone", score), p(names[1], "labelled alone", score)))
        holm = {small: min(1, 2 * small), large: max(min(1, 2 * small), large)}
        adjusted.append([holm[p(name, "labelled alone", score)] for name in names])
    error = float(stats.ttest_rel(of["out of fold, five folds"], of["validation of one fold"]).pvalue)
    cells = {
        line.split("|")[2].strip(): line.split("|")[-2].strip()
        for line in measured_gains.table(rows).splitlines()
        if line.count("|") == 9
    }
    assert cells[names[0]] == f"{adjusted[0][0]:.3f}, {adjusted[1][0]:.3f}"
    assert cells[names[1]] == f"{adjusted[0][1]:.3f}, {adjusted[1][1]:.3f}"
    assert cells["out of fold, five folds"] == f"{error:.3f}"
    assert cells["rate found by tune"] == ""  # one seed: no test


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


def test_folds_that_a_killed_run_has_trained_are_kept_and_what_other_recipes_left_is_not(
    scripts: tuple[Any, Any], tmp_path: Path
) -> None:
    measured_gains, gain_recipes = scripts
    found = []

    def run(folder: Path, seed: int) -> list[Any]:
        found.append(sorted(path.name for path in folder.iterdir()))
        (folder / "trained").mkdir(exist_ok=True)
        if len(found) % 2:
            raise StoppedError
        return [{"recipe": "a", "seed": seed}]

    for resumes, second in ((True, ["trained"]), (False, [])):
        recipe = gain_recipes.Recipe("family", "a", run, resumes=resumes)
        with pytest.raises(StoppedError):
            measured_gains.keep(recipe, 1, tmp_path)
        measured_gains.keep(recipe, 1, tmp_path)
        assert found[-1] == second
        assert not list((tmp_path / "work").iterdir())


def test_results_of_other_settings_are_not_mixed(scripts: tuple[Any, Any], tmp_path: Path) -> None:
    measured_gains, _ = scripts
    measured_gains.hold_to({"rate": 1e-3}, tmp_path / "gains")
    measured_gains.hold_to({"rate": 1e-3}, tmp_path / "gains")
    with pytest.raises(SystemExit, match="other settings"):
        measured_gains.hold_to({"rate": 2e-3}, tmp_path / "gains")


def test_folds_are_tested_on_other_questions_with_the_names_they_developed_on(
    scripts: tuple[Any, Any],
) -> None:
    from trials_of_one_pool import TrialsOfOnePool

    from medqlora.training.checks.examples import check_apart

    source = TrialsOfOnePool(train=450, dev=50, test=1000, seed=2, difficulty=3, fold=1)
    splits = source.read()
    assert [len(part) for part in splits] == [
        450,
        50,
        998,
    ]  # two share a run of 13 words with the others by chance
    assert check_apart([*splits.train, *splits.dev], splits.test, source) == []
    residues = {zlib.crc32(record.question.split()[1].encode()) % 8 for record in splits.test}
    assert residues == {0, 1, 2}  # the training set's


def test_an_ensemble_is_compared_with_its_folds_seed_by_seed_and_over_the_seeds(
    scripts: tuple[Any, Any],
) -> None:
    import pubmedqa_gains

    from medqlora.evaluation.side_by_side import side_by_side
    from medqlora.records import YES_NO_MAYBE

    def row(seed: int, right: int, folds: tuple[int, int]) -> dict[str, Any]:
        gold = ["yes", "no", "maybe", "no"] * 5
        wrong = ["no", "yes", "no", "maybe"] * 5
        said = {count: gold[:count] + wrong[count:] for count in (right, *folds)}
        others = {f"fold {number}": said[count] for number, count in enumerate(folds)}
        table = side_by_side(gold, YES_NO_MAYBE, ("the ensemble", said[right]), others)
        each = [{"accuracy": 0.4, "macro_f1": 0.3}, {"accuracy": 0.6, "macro_f1": 0.5}]
        interval = [0.1, 0.9]
        scores = {
            "accuracy": right / 20,
            "macro_f1": 0.5,
            "accuracy_ci95": interval,
            "macro_f1_ci95": interval,
        }
        pooled = {"accuracy": 0.5, "accuracy_ci95": interval}
        ensemble = {"recipe": pubmedqa_gains.ENSEMBLE, "seed": seed, "gold": gold, "decided": said[right]}
        return {**ensemble, **scores, "side_by_side": table, "each": each, "pooled": pooled}

    text = pubmedqa_gains.table([row(0, 16, (10, 14)), row(1, 15, (8, 12)), row(2, 13, (9, 14))])
    for over, differences in (("mean of its folds", (0.2, 0.25, 0.075)), ("best", (0.1, 0.15, -0.05))):
        interval = stats.ttest_1samp(differences, 0).confidence_interval()
        mean = f"| mean | {sum(differences) / 3:+.3f} [{interval.low:.3f}, {interval.high:.3f}] |"
        assert any(over in line and mean in line for line in text.splitlines())
    assert "| 0 | 0.500 [0.100, 0.900] | 0.400, 0.600 | 0.500, 0.700 | 0.600 | -0.100 |" in text
