"""The recipes that `measured_gains.py` trains: for each a function from a folder and a seed to rows of figures.

Each recipe is trained and tested as a user would, by `medqlora fit` and `medqlora test` with an overlay on
`configs/demo.yaml`. A seed draws the questions of training, validation and test, their order, and the adapters' initial
values. So two recipes of one seed are paired: they have the same questions, and differ by what their names say.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import yaml
from gain_runs import (
    CONFIG,
    FOLDS,
    Options,
    configuration,
    cross_validated,
    done_by,
    fit_and_test,
    row_of,
    steps_of,
    tested,
    trials,
    words_of,
    written,
)
from gain_settings import Recipe, Row, Settings
from gain_stages import stages

from medqlora.data import SyntheticTrials

ONE_POOL = "trials_of_one_pool.TrialsOfOnePool"
SEARCHES = 4  # trials at once


def recipes(settings: Settings) -> list[Recipe]:
    """All recipes, the longest first."""
    return [
        *_tune(settings),
        *stages(settings),
        *_folds(settings),
        *_balance(settings),
        *_average(settings),
    ]


def comparisons() -> list[tuple[str, str, str]]:
    """Family, recipe and the recipe that it is compared with."""
    return [
        ("stages", "artificial, then labelled", "labelled alone"),
        ("stages", "artificial, then labelled", "labelled alone, as many steps"),
        ("stages", "artificial, then labelled", "artificial alone"),
        ("stages", "artificial, then more labelled", "more labelled alone"),
        ("stages", "artificial, then more labelled", "more labelled alone, as many steps"),
        ("stages", "artificial, then more labelled", "artificial alone"),
        ("balance", "rare maybe, balance loss", "rare maybe"),
        ("balance", "rare maybe, balance sampling", "rare maybe"),
        ("smoothing", "labelled alone, label smoothing 0.1", "labelled alone"),
        ("ensemble", "ensemble of five folds", "one fold alone (mean of the five)"),
        ("folds", "out of fold, five folds", "validation of one fold"),
        ("tune", "rate found by tune", "default rate of large bases, 2e-4"),
        ("tune", "rate found by tune", "rate of the demo, 3e-3"),
        ("average", "average of the last three, constant rate", "the best single one, constant rate"),
    ]


def _balance(settings: Settings) -> list[Recipe]:
    """Maybe is rare in training, validation and test alike."""

    def overlay(balance: str) -> Callable[[Path, int], Options]:
        def made(folder: Path, seed: int) -> Options:
            source = {"class_path": "medqlora.data.JSONLines", "init_args": _rare(folder, settings, seed)}
            return configuration(settings, seed, settings.rare_epochs, {"source": source, "balance": balance})

        return made

    steps = steps_of(settings.rare, settings.rare_epochs)
    names = {
        "none": "rare maybe",
        "loss": "rare maybe, balance loss",
        "sampling": "rare maybe, balance sampling",
    }
    return [
        Recipe("balance", name, fit_and_test(name, overlay(balance), steps))
        for balance, name in names.items()
    ]


def _rare(folder: Path, settings: Settings, seed: int) -> Options:
    """The sets as files in which `rare_maybe` of the questions are maybe."""
    sizes = {"train": settings.rare, "dev": settings.rare_dev, "test": settings.rare_test}
    twice = {name: 2 * size for name, size in sizes.items()}
    splits = SyntheticTrials(**twice, seed=seed, difficulty=settings.rare_difficulty).read()
    files: Options = {}
    for name, records in splits._asdict().items():
        rare = round(settings.rare_maybe * sizes[name])
        left = {True: rare, False: sizes[name] - rare}
        kept = []
        for record in records:
            is_rare = record.answer == "maybe"
            if left[is_rare]:
                left[is_rare] -= 1
                kept.append(record)
        files[name] = written(folder / f"{name}.jsonl", kept)
    return files


def _folds(settings: Settings) -> list[Recipe]:
    """Five of ten folds of few questions: one alone against all together, and two estimates of the test accuracy.

    A fold keeps its last checkpoint: one that its own questions chose would make them too easy.
    """
    train = settings.folded * 9 // 10
    steps = steps_of(train, settings.folded_epochs)

    def run(folder: Path, seed: int) -> list[Row]:
        sized = replace(settings, test=settings.folded_test)
        source = {**trials(train, sized, seed, settings.folded - train), "class_path": ONE_POOL}
        overlay = configuration(settings, seed, settings.folded_epochs, {"source": source})
        overlay["trainer"] = {
            "max_epochs": settings.folded_epochs,
            "check_val_every_n_epoch": settings.folded_epochs,
        }
        words = words_of(folder, overlay)
        group = cross_validated(folder, words, FOLDS)
        report = tested(folder, [*words, f"--ensemble={group}"])
        members = report["side_by_side"][1:]  # type: ignore[index]
        alone = {key: sum(one[key] for one in members) / len(members) for key in ("accuracy", "macro_f1")}
        found = json.loads((group / "cv_report.json").read_text(encoding="utf-8"))
        # how far an estimate is from the test accuracy of its own adapter, or of the five: mean absolute error
        validated, own = [one["accuracy"] for one in found["each"]], [one["accuracy"] for one in members]
        single = sum(abs(one - other) for one, other in zip(validated, own, strict=True)) / len(members)
        pooled = abs(found["pooled"]["accuracy"] - alone["accuracy"])
        details = {"validated": validated, "tested": own}
        return [
            row_of("ensemble of five folds", seed, 5 * steps, report),
            row_of("one fold alone (mean of the five)", seed, steps, {**report, **alone}),
            {"recipe": "out of fold, five folds", "seed": seed, "error": pooled, **details},
            {"recipe": "validation of one fold", "seed": seed, "error": single},
        ]

    return [Recipe("ensemble", "ensemble of five folds", run, FOLDS, resumes=True)]


def _tune(settings: Settings) -> list[Recipe]:
    """A rate that nobody has tuned for this base, against a search of the rate by validation."""
    steps = steps_of(settings.searched, settings.searched_epochs)
    found, untuned, demo = (
        "rate found by tune",
        "default rate of large bases, 2e-4",
        "rate of the demo, 3e-3",
    )

    def overlay(rate: float) -> Callable[[Path, int], Options]:
        return lambda folder, seed: configuration(
            settings,
            seed,
            settings.searched_epochs,
            {"source": trials(settings.searched, settings, seed)},
            model={"learning_rate": rate},
        )

    def run(folder: Path, seed: int) -> list[Row]:
        words = words_of(folder, overlay(2e-4)(folder, seed))
        space, search = folder / "space.yaml", folder / "search"
        space.write_text("model.learning_rate: {low: 1.0e-4, high: 1.0e-2, log: true}\n", encoding="utf-8")
        config = json.loads((folder / "recipe.yaml").read_text(encoding="utf-8"))
        del config["checkpoint"], config["trainer"]["default_root_dir"]  # tune gives both itself
        searched = folder / "searched.yaml"
        searched.write_text(json.dumps(config), encoding="utf-8")
        options = [
            f"--space={space}",
            f"--trials={settings.trials}",
            f"--out={search}",
            f"--workers={SEARCHES}",
        ]
        done_by("tune", [f"--config={CONFIG}", f"--config={searched}", *options, f"--search_seed={seed}"])
        rate = yaml.safe_load((search / "best.yaml").read_text("utf-8"))["model"]["learning_rate"]
        adapter = next(
            file.parent / "adapter"
            for file in sorted((search / "trials").rglob("config.yaml"))
            if yaml.safe_load(file.read_text("utf-8"))["model"]["learning_rate"] == rate
        )
        row = row_of(
            found, seed, steps * settings.trials, tested(folder, [*words, f"--model.adapter={adapter}"])
        )
        return [{**row, "learning_rate": rate}]

    return [
        Recipe("tune", found, run, SEARCHES),
        Recipe("tune", untuned, fit_and_test(untuned, overlay(2e-4), steps)),
        Recipe("tune", demo, fit_and_test(demo, overlay(3e-3), steps)),
    ]


def _average(settings: Settings) -> list[Recipe]:
    """The average of the last three adapters of a constant rate, against the best single one of the same fit."""
    steps = steps_of(settings.searched, settings.searched_epochs)
    single, average = "the best single one, constant rate", "average of the last three, constant rate"

    def run(folder: Path, seed: int) -> list[Row]:
        overlay = configuration(
            settings,
            seed,
            settings.searched_epochs,
            {"source": trials(settings.searched, settings, seed)},
            model={"lr_scheduler": "constant"},
            average={"count": 3, "of": "last"},
        )
        words = words_of(folder, overlay)
        done_by("fit", [*words, "--progress.refresh_rate=0"])
        (averaged,) = folder.rglob("adapter_averaged")
        best = averaged.parent / "adapter"
        return [
            row_of(single, seed, steps, tested(folder, [*words, f"--model.adapter={best}"])),
            row_of(average, seed, steps, tested(folder, [*words, f"--model.adapter={averaged}"])),
        ]

    return [Recipe("average", single, run)]
