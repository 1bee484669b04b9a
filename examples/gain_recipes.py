"""The recipes that `measured_gains.py` trains: for each a function from a folder and a seed to rows of figures.

Each recipe is trained and tested as a user would, by `medqlora fit` and `medqlora test` with an overlay on
`configs/demo.yaml`. A seed draws the questions of training, validation and test, their order, and the adapters' initial
values. So two recipes of one seed are paired: they have the same questions, and differ by what their names say.
"""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from math import ceil
from pathlib import Path

import yaml
from gain_runs import FOLDS, Options, cross_validated, done_by, tested

from medqlora.data import SyntheticTrials
from medqlora.records import YES_NO_MAYBE, Record

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "demo.yaml"
BATCH = 8  # data.batch_size of the demo
ONE_POOL = "trials_of_one_pool.TrialsOfOnePool"
SEARCHES = 4  # trials at once

Row = dict[str, object]
Runner = Callable[[Path, int], list[Row]]


@dataclass(frozen=True)
class Settings:
    """Sizes and rates of all recipes; see `measured_gains.py` for how they were chosen.

    Attributes:
        difficulty: of the trials.
        rate: highest learning rate; of the recipes about the rate, those say.
        dev, test: questions to validate and to test on.
        labelled, labelled_epochs: of the stages' target set.
        artificial, artificial_epochs, wrong: of the first stage; the share of its labels that is wrong.
        second_rate: highest learning rate of the second stage.
        rare, rare_epochs, rare_dev, rare_test, rare_difficulty: of the balance recipes.
        rare_maybe: share of maybe in each of their sets.
        folded, folded_epochs, folded_test: development questions of the folds, nine tenths of which train a fold, and
            the questions that test them.
        trials: of `medqlora tune`.
        searched, searched_epochs: training questions and epochs of the search and of the averages.
    """

    difficulty: int = 3
    rate: float = 1.5e-3
    dev: int = 100
    test: int = 400
    labelled: int = 300
    labelled_epochs: int = 12
    artificial: int = 2400
    artificial_epochs: int = 2
    wrong: float = 0.2
    second_rate: float = 1e-3
    rare: int = 450
    rare_epochs: int = 8
    rare_dev: int = 200
    rare_test: int = 1000
    rare_difficulty: int = 2
    rare_maybe: float = 0.05
    folded: int = 500
    folded_epochs: int = 8
    folded_test: int = 1000
    trials: int = 8
    searched: int = 600
    searched_epochs: int = 5


@dataclass(frozen=True)
class Recipe:
    """One training and its test.

    Attributes:
        family: the gain that it is about.
        name: what is trained; a job may give rows of further names.
        run: trains and tests in a folder: an empty one, or that of its own interrupted run where it `resumes`.
        cores: that it uses at once.
        resumes: whether it goes on with what an interrupted run has trained.
    """

    family: str
    name: str
    run: Runner
    cores: int = 1
    resumes: bool = False


def recipes(settings: Settings) -> list[Recipe]:
    """All recipes, the longest first."""
    return [*_tune(settings), *_stages(settings), *_folds(settings), *_balance(settings), *_average(settings)]


def comparisons() -> list[tuple[str, str, str]]:
    """Family, recipe and the recipe that it is compared with."""
    return [
        ("stages", "artificial, then labelled", "labelled alone"),
        ("stages", "artificial, then labelled", "labelled alone, as many steps"),
        ("stages", "artificial, then labelled", "artificial alone"),
        ("balance", "rare maybe, balance loss", "rare maybe"),
        ("balance", "rare maybe, balance sampling", "rare maybe"),
        ("smoothing", "labelled alone, label smoothing 0.1", "labelled alone"),
        ("ensemble", "ensemble of five folds", "one fold alone (mean of the five)"),
        ("folds", "out of fold, five folds", "validation of one fold"),
        ("tune", "rate found by tune", "default rate of large bases, 2e-4"),
        ("tune", "rate found by tune", "rate of the demo, 3e-3"),
        ("average", "average of the last three, constant rate", "the best single one, constant rate"),
    ]


def _trials(train: int, settings: Settings, seed: int, dev: int | None = None) -> Options:
    """A source of trials as a configuration has it."""
    sizes = {"train": train, "dev": settings.dev if dev is None else dev, "test": settings.test}
    options = {**sizes, "seed": seed, "difficulty": settings.difficulty}
    return {"class_path": "medqlora.data.SyntheticTrials", "init_args": options}


def _overlay(settings: Settings, seed: int, epochs: int, data: Options, **more: Options) -> Options:
    """The configuration of a run beside the demo's."""
    return {
        "seed_everything": seed,
        "model": {"generate": False, "learning_rate": settings.rate, **more.pop("model", {})},
        "data": {**data, "seed": seed},
        "trainer": {"max_epochs": epochs},
        "checkpoint": {"monitor": "val/macro_f1"},
        **more,
    }


def _written(file: Path, records: Sequence[Record]) -> str:
    """The records as a file of JSON lines; its path."""
    keys = ("id", "question", "contexts", "answer", "long_answer")
    lines = [json.dumps({key: asdict(record)[key] for key in keys}) for record in records]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(file)


def _words(folder: Path, overlay: Options) -> list[str]:
    config = folder / "recipe.yaml"
    trainer = {**dict(overlay["trainer"]), "default_root_dir": str(folder)}  # type: ignore[call-overload]
    config.write_text(json.dumps({**overlay, "trainer": trainer}), encoding="utf-8")
    return [f"--config={CONFIG}", f"--config={config}"]


def _row(name: str, seed: int, steps: int, report: Options) -> Row:
    base = report.get("base") or {}
    return {
        "recipe": name,
        "seed": seed,
        "steps": steps,
        "accuracy": report["accuracy"],
        "macro_f1": report["macro_f1"],
        "base": base.get("accuracy"),  # type: ignore[attr-defined]
        "majority": report["majority_accuracy"],
    }


def _fit_and_test(name: str, overlay: Callable[[Path, int], Options], steps: int) -> Runner:
    def run(folder: Path, seed: int) -> list[Row]:
        words = _words(folder, overlay(folder, seed))
        done_by("fit", [*words, "--progress.refresh_rate=0"])
        return [_row(name, seed, steps, tested(folder, words))]

    return run


def _steps(questions: int, epochs: int) -> int:
    return epochs * ceil(questions / BATCH)


def _stages(settings: Settings) -> list[Recipe]:
    """A large set with wrong labels first, and then the small one: what stages are for."""
    first = _steps(settings.artificial, settings.artificial_epochs)
    epoch = _steps(settings.labelled, 1)
    more_epochs = settings.labelled_epochs + ceil(first / epoch)

    def artificial(folder: Path, seed: int) -> Options:
        return {"class_path": "medqlora.data.JSONLines", "init_args": _artificial(folder, settings, seed)}

    def alone(epochs: int, **data: object) -> Callable[[Path, int], Options]:
        return lambda folder, seed: _overlay(
            settings, seed, epochs, {"source": _trials(settings.labelled, settings, seed), **data}
        )

    def in_stages(*later: Options) -> Callable[[Path, int], Options]:
        def overlay(folder: Path, seed: int) -> Options:
            stage: Options = {"name": "artificial", "source": artificial(folder, seed)}
            stages = [{**stage, "epochs": settings.artificial_epochs}, *later]
            source = _trials(settings.labelled, settings, seed)
            return _overlay(settings, seed, 1, {"source": source, "stages": stages, "stage_schedule": "each"})

        return overlay

    second = {"name": "labelled", "epochs": settings.labelled_epochs, "learning_rate": settings.second_rate}
    table: list[tuple[str, str, Callable[[Path, int], Options], int]] = [
        ("stages", "artificial, then labelled", in_stages(second), first + epoch * settings.labelled_epochs),
        ("stages", "labelled alone, as many steps", alone(more_epochs), epoch * more_epochs),
        ("stages", "artificial alone", in_stages(), first),
        ("stages", "labelled alone", alone(settings.labelled_epochs), epoch * settings.labelled_epochs),
        (
            "smoothing",
            "labelled alone, label smoothing 0.1",
            alone(settings.labelled_epochs, label_smoothing=0.1),
            epoch * settings.labelled_epochs,
        ),
    ]
    return [
        Recipe(family, name, _fit_and_test(name, overlay, steps)) for family, name, overlay, steps in table
    ]


def _artificial(folder: Path, settings: Settings, seed: int) -> Options:
    """Options of a file with other trials of the same kind, some of whose labels are wrong."""
    rng = random.Random(f"{seed}/wrong labels")
    trials = SyntheticTrials(settings.artificial, 0, 1, seed + 500_000, settings.difficulty).read().train
    rationales = {record.answer: record.long_answer for record in trials}
    records = []
    for record in trials:
        if rng.random() < settings.wrong:
            answer = rng.choice([label for label in YES_NO_MAYBE if label != record.answer])
            record = replace(record, answer=answer, long_answer=rationales[answer])
        records.append(replace(record, id=f"artificial-{record.id}"))
    return {"train": _written(folder / "artificial.jsonl", records), "dev_fraction": 0}


def _balance(settings: Settings) -> list[Recipe]:
    """Maybe is rare in training, validation and test alike."""

    def overlay(balance: str) -> Callable[[Path, int], Options]:
        def made(folder: Path, seed: int) -> Options:
            source = {"class_path": "medqlora.data.JSONLines", "init_args": _rare(folder, settings, seed)}
            return _overlay(settings, seed, settings.rare_epochs, {"source": source, "balance": balance})

        return made

    steps = _steps(settings.rare, settings.rare_epochs)
    names = {
        "none": "rare maybe",
        "loss": "rare maybe, balance loss",
        "sampling": "rare maybe, balance sampling",
    }
    return [
        Recipe("balance", name, _fit_and_test(name, overlay(balance), steps))
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
        files[name] = _written(folder / f"{name}.jsonl", kept)
    return files


def _folds(settings: Settings) -> list[Recipe]:
    """Five of ten folds of few questions: one alone against all together, and two estimates of the test accuracy.

    A fold keeps its last checkpoint: one that its own questions chose would make them too easy.
    """
    train = settings.folded * 9 // 10
    steps = _steps(train, settings.folded_epochs)

    def run(folder: Path, seed: int) -> list[Row]:
        sized = replace(settings, test=settings.folded_test)
        source = {**_trials(train, sized, seed, settings.folded - train), "class_path": ONE_POOL}
        overlay = _overlay(settings, seed, settings.folded_epochs, {"source": source})
        overlay["trainer"] = {
            "max_epochs": settings.folded_epochs,
            "check_val_every_n_epoch": settings.folded_epochs,
        }
        words = _words(folder, overlay)
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
            _row("ensemble of five folds", seed, 5 * steps, report),
            _row("one fold alone (mean of the five)", seed, steps, {**report, **alone}),
            {"recipe": "out of fold, five folds", "seed": seed, "error": pooled, **details},
            {"recipe": "validation of one fold", "seed": seed, "error": single},
        ]

    return [Recipe("ensemble", "ensemble of five folds", run, FOLDS, resumes=True)]


def _tune(settings: Settings) -> list[Recipe]:
    """A rate that nobody has tuned for this base, against a search of the rate by validation."""
    steps = _steps(settings.searched, settings.searched_epochs)
    found, untuned, demo = (
        "rate found by tune",
        "default rate of large bases, 2e-4",
        "rate of the demo, 3e-3",
    )

    def overlay(rate: float) -> Callable[[Path, int], Options]:
        return lambda folder, seed: _overlay(
            settings,
            seed,
            settings.searched_epochs,
            {"source": _trials(settings.searched, settings, seed)},
            model={"learning_rate": rate},
        )

    def run(folder: Path, seed: int) -> list[Row]:
        words = _words(folder, overlay(2e-4)(folder, seed))
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
        row = _row(
            found, seed, steps * settings.trials, tested(folder, [*words, f"--model.adapter={adapter}"])
        )
        return [{**row, "learning_rate": rate}]

    return [
        Recipe("tune", found, run, SEARCHES),
        Recipe("tune", untuned, _fit_and_test(untuned, overlay(2e-4), steps)),
        Recipe("tune", demo, _fit_and_test(demo, overlay(3e-3), steps)),
    ]


def _average(settings: Settings) -> list[Recipe]:
    """The average of the last three adapters of a constant rate, against the best single one of the same fit."""
    steps = _steps(settings.searched, settings.searched_epochs)
    single, average = "the best single one, constant rate", "average of the last three, constant rate"

    def run(folder: Path, seed: int) -> list[Row]:
        overlay = _overlay(
            settings,
            seed,
            settings.searched_epochs,
            {"source": _trials(settings.searched, settings, seed)},
            model={"lr_scheduler": "constant"},
            average={"count": 3, "of": "last"},
        )
        words = _words(folder, overlay)
        done_by("fit", [*words, "--progress.refresh_rate=0"])
        (averaged,) = folder.rglob("adapter_averaged")
        best = averaged.parent / "adapter"
        return [
            _row(single, seed, steps, tested(folder, [*words, f"--model.adapter={best}"])),
            _row(average, seed, steps, tested(folder, [*words, f"--model.adapter={averaged}"])),
        ]

    return [Recipe("average", single, run)]
