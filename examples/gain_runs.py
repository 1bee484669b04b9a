"""What the recipes of the gains do with medqlora: a configuration, a fit, five folds, a test."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from math import ceil
from pathlib import Path

from gain_settings import Row, Runner, Settings

from medqlora.cli import main as medqlora
from medqlora.records import Record

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "demo.yaml"
BATCH = 8  # data.batch_size of the demo
FOLDS = 5  # of the ten

Options = dict[str, object]


def done_by(command: str, words: Sequence[str]) -> None:
    """Runs a command of medqlora.

    Raises:
        SystemExit: it failed.
    """
    if medqlora([command, *words]):
        raise SystemExit(f"medqlora {command} failed, see above")


def cross_validated(folder: Path, words: Sequence[str], at_once: int) -> Path:
    """Trains the first folds, or goes on with those of an interrupted run; the folder of all."""
    group = folder / "lightning_logs" / "cv_0"
    begun = [f"--ckpt_path={group}"] if (group / "group.json").is_file() else []
    folds = ",".join(map(str, range(FOLDS)))
    options = ["--progress.refresh_rate=0", f"--folds={folds}", f"--folds_at_once={at_once}", *begun]
    done_by("fit", [*words, *options])
    return group


def tested(folder: Path, words: Sequence[str]) -> Options:
    """Tests, and reads the newest report under the folder."""
    done_by("test", [*words, "--progress.refresh_rate=0"])
    reports = sorted(folder.rglob("test_report.json"), key=lambda file: file.stat().st_mtime_ns)
    return dict(json.loads(reports[-1].read_text(encoding="utf-8")))


def trials(train: int, settings: Settings, seed: int, dev: int | None = None) -> Options:
    """A source of trials as a configuration has it."""
    sizes = {"train": train, "dev": settings.dev if dev is None else dev, "test": settings.test}
    options = {**sizes, "seed": seed, "difficulty": settings.difficulty}
    return {"class_path": "medqlora.data.SyntheticTrials", "init_args": options}


def configuration(settings: Settings, seed: int, epochs: int, data: Options, **more: Options) -> Options:
    """The configuration of a run beside the demo's."""
    return {
        "seed_everything": seed,
        "model": {"generate": False, "learning_rate": settings.rate, **more.pop("model", {})},
        "data": {**data, "seed": seed},
        "trainer": {"max_epochs": epochs},
        "checkpoint": {"monitor": "val/macro_f1"},
        **more,
    }


def written(file: Path, records: Sequence[Record]) -> str:
    """The records as a file of JSON lines; its path."""
    keys = ("id", "question", "contexts", "answer", "long_answer")
    lines = [json.dumps({key: asdict(record)[key] for key in keys}) for record in records]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(file)


def words_of(folder: Path, overlay: Options) -> list[str]:
    config = folder / "recipe.yaml"
    trainer = {**dict(overlay["trainer"]), "default_root_dir": str(folder)}  # type: ignore[call-overload]
    config.write_text(json.dumps({**overlay, "trainer": trainer}), encoding="utf-8")
    return [f"--config={CONFIG}", f"--config={config}"]


def row_of(name: str, seed: int, steps: int, report: Options) -> Row:
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


def fit_and_test(name: str, overlay: Callable[[Path, int], Options], steps: int) -> Runner:
    def run(folder: Path, seed: int) -> list[Row]:
        words = words_of(folder, overlay(folder, seed))
        done_by("fit", [*words, "--progress.refresh_rate=0"])
        return [row_of(name, seed, steps, tested(folder, words))]

    return run


def steps_of(questions: int, epochs: int) -> int:
    return epochs * ceil(questions / BATCH)
