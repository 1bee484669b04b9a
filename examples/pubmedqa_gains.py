"""What balance, folds and ensembles gain on the real PubMedQA with any base, on one GPU: a table with intervals.

    python examples/pubmedqa_gains.py --base SmolLM2-135M-Instruct --path ori_pqal.json --workers 6 --out pubmedqa

Each recipe is trained on the official split and tested on the official 500 questions, each in a process of its own:
balance none, loss and sampling on fold 0 for each seed, and the folds 0 to 4 with their ensemble. All have the same
epochs, rate and rank, which no recipe was tuned for, and keep the checkpoint with the best val/macro_f1.
OUT/results.jsonl keeps figures and decisions, so an interrupted run goes on, that of the folds with those that are
trained. Differences are of the same 500 questions:
exact McNemar test, Newcombe's interval of accuracy, bootstrap interval of macro-F1. A mean over seeds has Student's
interval over the seeds, which says nothing of other questions.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from gain_runs import FOLDS, Options, cross_validated, done_by, tested
from gain_settings import Recipe, Row, Runner
from measured_gains import Job, done, hold_to, keep, run_jobs

from medqlora.evaluation.statistics.aggregation import spread
from medqlora.evaluation.statistics.paired import compare
from medqlora.records import YES_NO_MAYBE

ROOT = Path(__file__).resolve().parents[1]
BALANCES = ("none", "loss", "sampling")
ENSEMBLE = f"ensemble of {FOLDS} folds"
BEST, MEAN = "the fold with the best macro-F1 in validation", "mean of its folds"
KEYS = ("difference", "macro_f1_difference")


def recipes(given: argparse.Namespace) -> list[Recipe]:
    """The ensemble first: it takes longest."""
    balances = [
        Recipe("balance", f"balance {balance}", _balance(given, balance)) for balance in given.balances
    ]
    return [Recipe("ensemble", ENSEMBLE, _ensemble(given), given.folds_at_once, True), *balances]


def _words(given: argparse.Namespace, folder: Path, seed: int, **data: object) -> list[str]:
    """The words of a fit or a test: the configurations, and an overlay in `folder`."""
    source: Options = {
        "class_path": "medqlora.data.PubMedQA",
        "init_args": {"fold": 0, "path": str(given.path)},
    }
    overlay: Options = {
        "seed_everything": seed,
        "model": {
            "backend": {
                "class_path": "medqlora.models.Transformers",
                "init_args": {
                    "base": str(given.base),
                    "quantization": "nf4",
                    "gradient_checkpointing": False,
                },
            },
            "learning_rate": given.rate,
            "generate": False,
            "checkpointing": "auto",  # of a small base on a large GPU: keep the activations and 16-bit weights
            "weights": "auto",
        },
        "data": {
            "source": source,
            "seed": seed,
            "prompt": "lm_eval",
            "micro_batch_tokens": 4096,  # small enough for CUDA graphs
            "eval_batch_size": 32,
            **data,
        },
        "trainer": {"max_epochs": given.epochs, "default_root_dir": str(folder)},
        "checkpoint": {"monitor": "val/macro_f1"},
    }
    config = folder / "recipe.yaml"
    config.write_text(json.dumps(overlay), encoding="utf-8")
    return [*(f"--config={name}" for name in given.config), f"--config={config}", *given.more]


def _balance(given: argparse.Namespace, balance: str) -> Runner:
    def run(folder: Path, seed: int) -> list[Row]:
        words = _words(given, folder, seed, balance=balance)
        done_by("fit", [*words, "--progress.refresh_rate=0"])
        report = tested(folder, words)
        return [_row(f"balance {balance}", seed, report, folder)]

    return run


def _ensemble(given: argparse.Namespace) -> Runner:
    def run(folder: Path, seed: int) -> list[Row]:
        words = _words(given, folder, seed)
        gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
        if given.folds_at_once > 1 and gpu:  # folds of a small base share a GPU
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join([gpu] * given.folds_at_once)
        group = cross_validated(folder, words, given.folds_at_once)
        report = tested(folder, [*words, f"--ensemble={group}"])
        found = json.loads((group / "cv_report.json").read_text(encoding="utf-8"))
        row = _row(ENSEMBLE, seed, report, folder)
        return [
            {**row, "side_by_side": report["side_by_side"], "each": found["each"], "pooled": found["pooled"]}
        ]

    return run


def _row(name: str, seed: int, report: Options, folder: Path) -> Row:
    """The report's figures, with the decisions of its questions in the order of their ids."""
    files = sorted(folder.rglob("predictions.jsonl"), key=lambda file: file.stat().st_mtime_ns)
    lines = [json.loads(line) for line in files[-1].read_text(encoding="utf-8").splitlines()]
    lines.sort(key=lambda line: str(line["id"]))
    keys = ("accuracy", "accuracy_ci95", "macro_f1", "macro_f1_ci95", "majority_accuracy", "ece")
    return {
        "recipe": name,
        "seed": seed,
        **{key: report[key] for key in keys},
        "gold": [line["gold"] for line in lines],
        "decided": [line["decision"] for line in lines],
    }


def table(rows: Sequence[Row]) -> str:
    """Each run's figures with intervals, and the paired differences, in Markdown."""
    lines = ["| recipe | seed | accuracy | macro-F1 | yes, no, maybe decided |", "|---|---|---|---|---|"]
    rows = sorted(rows, key=lambda row: (str(row["recipe"]), int(str(row["seed"]))))
    for row in rows:
        decided = _texts(row, "decided")
        counts = ", ".join(str(decided.count(label)) for label in YES_NO_MAYBE)
        scores = [f"{row[key]:.3f} {_interval(row[f'{key}_ci95'])}" for key in ("accuracy", "macro_f1")]
        lines.append(f"| {row['recipe']} | {row['seed']} | {' | '.join(scores)} | {counts} |")
    lines += [
        "",
        "| recipe | against | seed | accuracy, difference | macro-F1, difference | exact McNemar p |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        line for balance in BALANCES[1:] for line in _paired(rows, f"balance {balance}", "balance none")
    ]
    ensembles = [row for row in rows if row["recipe"] == ENSEMBLE]
    lines += _ensembles(ensembles)
    if ensembles:
        lines += _folds(ensembles)
    return "\n".join(lines)


def _paired(rows: Sequence[Row], name: str, against: str) -> list[str]:
    """A line a seed, and one with the mean over the seeds."""
    lines, differences = list[str](), list[list[float]]()
    others = {row["seed"]: row for row in rows if row["recipe"] == against}
    for row in (one for one in rows if one["recipe"] == name and one["seed"] in others):
        other = others[row["seed"]]
        gold, first, second = _texts(row, "gold"), _texts(row, "decided"), _texts(other, "decided")
        found = compare(gold, first, second, YES_NO_MAYBE, int(str(row["seed"])))
        accuracy = f"{found['difference']:+.3f} {_interval(found['difference_ci95'])}"
        macro = f"{found['macro_f1_difference']:+.3f} {_interval(found['macro_f1_difference_ci95'])}"
        lines.append(
            f"| {name} | {against} | {row['seed']} | {accuracy} | {macro} | {found['mcnemar_p']:.3f} |"
        )
        differences.append([found["difference"], found["macro_f1_difference"]])
    return lines + _mean(name, against, differences)


def _mean(name: str, against: str, differences: Sequence[Sequence[float]]) -> list[str]:
    """The line of the mean over two or more seeds, with Student's t interval."""
    if len(differences) < 2:
        return []
    means = [spread([float(str(one[at])) for one in differences]) for at in (0, 1)]
    cells = [f"{one['mean']:+.3f} {_interval(one['mean_ci95'])}" for one in means]
    return [f"| {name} | {against} | mean | {' | '.join(cells)} | |"]


def _ensembles(rows: Sequence[Row]) -> list[str]:
    """Each seed's ensemble against its best fold by validation and the mean of its folds, and the means over seeds."""
    lines: list[str] = []
    against: dict[str, list[list[float]]] = {BEST: [], MEAN: []}
    for row in rows:
        first, *members = list(row["side_by_side"])  # type: ignore[call-overload]
        validated = [one["macro_f1"] for one in row["each"]]  # type: ignore[attr-defined]
        best = members[validated.index(max(validated))]
        cells = []
        for key in KEYS:
            low, high = best[f"{key}_ci95"]
            cells.append(f"{-best[key]:+.3f} {_interval([-high, -low])}")
        lines.append(
            f"| {ENSEMBLE} | {BEST} | {row['seed']} | {' | '.join(cells)} | {best['mcnemar_p']:.3f} |"
        )
        means = [
            first[key] - sum(one[key] for one in members) / len(members) for key in ("accuracy", "macro_f1")
        ]
        lines.append(
            f"| {ENSEMBLE} | {MEAN} | {row['seed']} | {' | '.join(f'{mean:+.3f}' for mean in means)} | |"
        )
        against[BEST].append([-best[key] for key in KEYS])
        against[MEAN].append(means)
    return lines + [
        line for name, differences in against.items() for line in _mean(ENSEMBLE, name, differences)
    ]


def _folds(rows: Sequence[Row]) -> list[str]:
    """Each seed's out-of-fold accuracy beside the test accuracy of its folds."""
    lines = [
        "",
        "| seed | out of fold | each fold's validation | each fold's test | mean test | out of fold - mean test |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        tested = [one["accuracy"] for one in list(row["side_by_side"])[1:]]  # type: ignore[call-overload]
        validated = [one["accuracy"] for one in row["each"]]  # type: ignore[attr-defined]
        pooled: Row = row["pooled"]  # type: ignore[assignment]
        mean, found = sum(tested) / len(tested), float(str(pooled["accuracy"]))
        cells = [", ".join(f"{one:.3f}" for one in values) for values in (validated, tested)]
        lines.append(
            f"| {row['seed']} | {found:.3f} {_interval(pooled['accuracy_ci95'])} | {' | '.join(cells)} "
            f"| {mean:.3f} | {found - mean:+.3f} |"
        )
    return lines


def _texts(row: Row, key: str) -> list[str]:
    return [str(text) for text in row[key]]  # type: ignore[attr-defined]


def _interval(found: object) -> str:
    low, high = (float(bound) for bound in found)  # type: ignore[attr-defined]
    return f"[{low:.3f}, {high:.3f}]"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--base", required=True, help="the base model: a folder or a name on the Hub")
    add("--path", type=Path, required=True, help="PubMedQA's ori_pqal.json")
    add("--config", action="append", help="configurations (default: qlora.yaml and bf16.yaml)")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add("--ensemble_seeds", type=int, nargs="+", default=[0])
    add("--balances", nargs="+", choices=BALANCES, default=list(BALANCES))
    add("--epochs", type=int, default=5)
    add("--rate", type=float, default=5e-4)
    add("--workers", type=int, default=1, help="fits at once on the GPU")
    add("--folds_at_once", type=int, default=1, help="of these, the folds of one ensemble")
    add("--out", type=Path, default=Path("pubmedqa"))
    add("--more", nargs="*", default=[], help="further options of every fit and test, as model.lora.r=8")
    add("--job", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.config = given.config or [str(ROOT / "configs" / name) for name in ("qlora.yaml", "bf16.yaml")]
    given.more = [f"--{word.lstrip('-')}" for word in given.more]
    return given


def main() -> int:
    given = arguments()
    hold_to(
        {name: str(getattr(given, name)) for name in ("base", "config", "epochs", "rate", "more")}, given.out
    )
    if given.job:
        keep(next(one for one in recipes(given) if one.name == given.job[0]), int(given.job[1]), given.out)
        return 0
    have = {(row["job"], row["seed"]) for row in done(given.out)}
    wanted = [
        Job(recipe, seed)
        for recipe in recipes(given)
        for seed in (given.ensemble_seeds if recipe.family == "ensemble" else given.seeds)
        if (recipe.name, seed) not in have
    ]
    failed = run_jobs(wanted, given.workers, given.out, [Path(__file__), *sys.argv[1:]])
    if rows := done(given.out):
        print(table(rows))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
