"""What balance, label smoothing and stages gain on the synthetic trials made harder: a table over seeds, on a CPU.

    python examples/measured_gains.py --seeds 0 1 2 --out gains

Each line of the table is one recipe, trained and tested once a seed on the demo's base. All train on trials of
difficulty 3, the rare-maybe recipes with one maybe in six of them. The test questions are the same for all. Results are
kept in OUT/results.jsonl: a run that was interrupted goes on.
"""

import argparse
import json
import statistics
import tempfile
from dataclasses import asdict
from pathlib import Path

from medqlora.cli import main as medqlora
from medqlora.data import SyntheticTrials

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "demo.yaml"


def source(train: int, seed: int, difficulty: int) -> dict[str, object]:
    """A source of trials as a configuration has it; validation and test are those of seed 0."""
    options = {"train": train, "dev": 100, "test": 300, "seed": seed, "difficulty": difficulty}
    return {"class_path": "medqlora.data.SyntheticTrials", "init_args": options}


def rare_maybe(folder: Path, train: int, seed: int, difficulty: int) -> dict[str, object]:
    """The same trials as files, with one in six of the training set's maybe questions."""
    splits = SyntheticTrials(train, 100, 300, seed, difficulty).read()
    files = {}
    for name, records in splits._asdict().items():
        kept, maybe = [], 0
        for record in records:
            maybe += record.answer == "maybe"
            if name != "train" or record.answer != "maybe" or maybe % 6 == 1:
                kept.append(record)
        files[name] = str(folder / f"{name}.jsonl")
        keys = ("id", "question", "contexts", "answer", "long_answer")
        lines = [json.dumps({key: asdict(record)[key] for key in keys}) for record in kept]
        Path(files[name]).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {"class_path": "medqlora.data.JSONLines", "init_args": files}


def recipes(folder: Path, train: int, seed: int) -> dict[str, tuple[dict[str, object], int]]:
    """Name → the `data` of each recipe and its epochs."""
    hard, plain, others = source(train, seed, 3), source(train, seed + 100, 0), source(train, seed + 200, 3)
    stages = [{"name": "plain", "source": plain, "epochs": 2}, {"epochs": 4}]
    alike = [{"name": "others", "source": others, "epochs": 1}, {"epochs": 3}]
    rare = {"source": rare_maybe(folder, train, seed, 3)}
    return {
        "one stage, 4 epochs": ({"source": hard}, 4),
        "one stage, 6 epochs": ({"source": hard}, 6),
        "two stages: 2 epochs of plain trials, then 4": (
            {"source": hard, "stages": stages, "stage_schedule": "each"},
            6,
        ),
        "two stages: 1 epoch of other trials alike, then 3": ({"source": hard, "stages": alike}, 4),
        "one stage, 4 epochs, label smoothing 0.1": ({"source": hard, "label_smoothing": 0.1}, 4),
        "rare maybe": (rare, 4),
        "rare maybe, balance loss": ({**rare, "balance": "loss"}, 4),
        "rare maybe, balance sampling": ({**rare, "balance": "sampling"}, 4),
    }


def measured(name: str, data: dict[str, object], seed: int, epochs: int) -> dict[str, object]:
    """Trains and tests one recipe; the figures of its test report."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "recipe.yaml"
        options = {
            "model": {"generate": False},
            "data": {**data, "seed": seed},
            "trainer": {"max_epochs": epochs, "default_root_dir": folder},
            "checkpoint": {"monitor": "val/macro_f1"},
        }
        config.write_text(json.dumps(options), encoding="utf-8")
        words = [f"--config={CONFIG}", f"--config={config}", "--progress.refresh_rate=0"]
        if medqlora(["fit", *words]) or medqlora(["test", *words]):
            raise SystemExit(f"{name}, seed {seed}: the run failed")
        (report,) = Path(folder).rglob("test_report.json")
        found = json.loads(report.read_text(encoding="utf-8"))
    threshold = found.get("label_threshold") or {}
    base = found["base"]
    return {
        "recipe": name,
        "seed": seed,
        "accuracy": found["accuracy"],
        "macro_f1": found["macro_f1"],
        "macro_f1_by_threshold": threshold.get("macro_f1"),
        "base": base["accuracy"],
        "majority": found["majority_accuracy"],
    }


def table(rows: list[dict[str, object]]) -> str:
    """The results in Markdown: mean over seeds, and the seeds' values."""
    lines = [
        "| recipe | accuracy | macro-F1 | macro-F1 with a threshold for the rarest label | accuracy of each seed |",
        "|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(str(row["recipe"]) for row in rows):
        own = [row for row in rows if row["recipe"] == name]
        cells = [
            _mean([row[key] for row in own]) for key in ("accuracy", "macro_f1", "macro_f1_by_threshold")
        ]
        seeds = ", ".join(format(float(str(row["accuracy"])), ".3f") for row in own)
        lines.append(f"| {' | '.join([name, *cells, seeds])} |")
    bases, majority = [float(str(row["base"])) for row in rows], float(str(rows[0]["majority"]))
    lines.append(f"\nBare base {statistics.mean(bases):.3f}; always the majority {majority:.3f}.")
    return "\n".join(lines)


def _mean(values: list[object]) -> str:
    known = [float(str(value)) for value in values if value is not None]
    return f"{statistics.mean(known):.3f}" if known else "-"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--train", type=int, default=1200, help="training questions")
    parser.add_argument("--only", default="", help="recipes that contain this text")
    parser.add_argument("--out", type=Path, default=Path("gains"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    kept = given.out / "results.jsonl"
    rows = [json.loads(line) for line in kept.read_text("utf-8").splitlines()] if kept.exists() else []
    for seed in given.seeds:
        with tempfile.TemporaryDirectory() as files:
            for name, (data, epochs) in recipes(Path(files), given.train, seed).items():
                if given.only not in name or any(
                    row["recipe"] == name and row["seed"] == seed for row in rows
                ):
                    continue
                rows.append(measured(name, data, seed, epochs))
                with kept.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
