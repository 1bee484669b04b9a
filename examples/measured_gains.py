"""What stages, balance, smoothing, folds, ensembles, search and averages gain on the harder synthetic trials.

    python examples/measured_gains.py --seeds 0 1 2 3 4 5 6 --workers 8 --out gains

Every recipe of `gain_recipes.py` is trained and tested once a seed on the demo's base, on a CPU, in a process of its
own. OUT/results.jsonl keeps the figures, so an interrupted run goes on, that of folds with the folds that are trained;
OUT/logs has what each process said. A gain is the mean over the seeds of a recipe's score minus that of the recipe it
is compared with, on the same questions, with Student's t interval over the seeds, which have other questions each.
Where the interval holds 0, no gain is shown. The intervals are each of its own; the last column has the p of accuracy
and of macro-F1 by Student's test, adjusted by Holm's method for all comparisons of that score in the table.

The design, as it was fixed before the seeds that it measures were run (difficulty 3 unless said otherwise):

- rate: 1.5e-3 everywhere. In pilot fits of seeds 1000 and 1001, by validation, the demo's 3e-3 learned slowly or not at
  all on these trials, and a second stage that began at 3e-3 lost what the first had learned.
- stages: 300 labelled questions alone, against 2,400 artificial ones first, a fifth of whose labels are wrong, and then
  the same 300. Controls: the 300 for as many steps as both stages, and the artificial ones alone.
- stages, more labelled: the same with 700 labelled questions, 8 epochs. With 300 one stage was far below 0.8, the
  accuracy from which a second one should gain. The number was chosen by pilot fits of one stage, of 8 epochs and two
  seeds each: the best validation accuracy was 0.72 and 0.76 with 600, 0.77 and 0.80 with 700, 0.92 and 0.85 with 800.
  Two stages had 0.90 and 0.95 with 700, and 0.93 with 800 (seed 1000 alone), where one had reached as much.
- balance: 450 training questions, of which 5% are maybe, in validation and test too; 1,000 test questions, so that 50
  are maybe; difficulty 2. An earlier design (a tenth, difficulty 3, 400 questions) was given up after its seeds 0 to 2:
  whether a fit learned at all was chance there, and without balance it said maybe anyway, which is not the failure
  that balance is for. In the pilot (seed 1000, by validation) a plain fit had macro-F1 0.88 with a tenth and 0.68 with
  5%; one with `loss` had 0.79 and 0.74.
- folds, ensemble: five of ten folds of 500 questions. One fold is the mean of the five, not the best of them. Folds
  also estimate the test accuracy, by out-of-fold answers: the error is compared with that of one fold's validation,
  each against the test accuracy of its own adapters; it can't be larger, and the table says by how much it is smaller.
  So that the estimates are of what the test measures, a fold keeps its last checkpoint, not the best by its own 50
  questions, and the 1,000 test questions are drawn as the development questions are (`trials_of_one_pool.py`). An
  earlier design did neither, and after its seeds 0 and 1 all its errors had the same sign.
- tune: eight trials of the rate between 1e-4 and 1e-2, judged by validation, against two rates that nobody tuned for
  these trials: 2e-4, the default for large bases, and 3e-3, the demo's.
- smoothing and averages: one option against the same fit without it.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent))

from gain_recipes import comparisons, recipes
from gain_settings import Recipe, Row, Settings

from medqlora.evaluation.metrics.suite_scores import holm
from medqlora.evaluation.statistics.aggregation import spread

SCORES = ("accuracy", "macro_f1", "error")
SAME = 1e-6  # points; a few seeds that differ by no more have the same score by chance, and no spread to judge by


@dataclass
class Job:
    """One recipe with one seed, and its process while it runs."""

    recipe: Recipe
    seed: int
    process: "subprocess.Popen[bytes] | None" = None
    started: float = 0.0

    @property
    def name(self) -> str:
        return f"{self.recipe.name}, seed {self.seed}"

    def log(self, out: Path) -> Path:
        return out / "logs" / f"{file_name(self.recipe, self.seed)}.log"


def file_name(recipe: Recipe, seed: int) -> str:
    """The name of a recipe's log and folder."""
    return f"{recipe.name.replace(' ', '_').replace(',', '')}-{seed}"


def done(out: Path) -> list[Row]:
    """The rows so far; a line that a kill cut is left out."""
    file = out / "results.jsonl"
    lines = file.read_text("utf-8").splitlines() if file.exists() else []
    rows = [row for line in lines for row in _rows(line)]
    return list(
        {(row["recipe"], row["seed"]): row for row in rows}.values()
    )  # once, if two runs did the same


def _rows(line: str) -> list[Row]:
    try:
        return list(json.loads(line)["rows"])
    except ValueError:
        return []


def hold_to(settings: Mapping[str, object], out: Path) -> None:
    """Keeps the settings beside the results.

    Raises:
        SystemExit: the folder has results of other settings.
    """
    out.mkdir(parents=True, exist_ok=True)
    file = out / "settings.json"
    text = json.dumps(settings, indent=2, sort_keys=True) + "\n"
    if not file.exists():
        file.write_text(text, encoding="utf-8")
    elif file.read_text(encoding="utf-8") != text:
        raise SystemExit(f"--out {out}: its results have other settings ({file}): give another folder")


def keep(recipe: Recipe, seed: int, out: Path) -> None:
    """Trains and tests one recipe in this process, and keeps its rows."""
    folder = out.resolve() / "work" / file_name(recipe, seed)
    if not recipe.resumes:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    rows = recipe.run(folder, seed)
    seconds = round(time.perf_counter() - started, 1)
    text = json.dumps({"rows": [{**row, "job": recipe.name, "seconds": seconds} for row in rows]})
    with (out / "results.jsonl").open("a", encoding="utf-8") as file:
        file.write(f"\n{text}\n")  # one write, since several processes append; a cut line before it is ended
    shutil.rmtree(folder, ignore_errors=True)


def run_jobs(jobs: Sequence[Job], workers: int, out: Path, script: Sequence[str | Path]) -> int:
    """Runs the jobs on `workers` cores, the first ones first; how many failed.

    Args:
        jobs: what to run.
        workers: cores to use.
        out: folder of the results and the logs.
        script: the script that runs one job with `--job NAME SEED`, and its options.
    """
    (out / "logs").mkdir(parents=True, exist_ok=True)
    waiting, running, failed, ended = list(jobs), list[Job](), 0, 0
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that the jobs end too
    try:
        while waiting or running:
            free = workers - sum(job.recipe.cores for job in running)
            for job in [one for one in waiting if one.recipe.cores <= free or not running][:1]:
                waiting.remove(job)
                running.append(_started(job, out, script))
            for job in [one for one in running if one.process and one.process.poll() is not None]:
                running.remove(job)
                ended += 1
                code = job.process.returncode if job.process else 1
                failed += bool(code)
                state = f"failed, see {job.log(out)}" if code else _figures(job, out)
                print(
                    f"[{ended}/{len(jobs)}] {job.name}: {state} ({time.time() - job.started:.0f} s)",
                    flush=True,
                )
            time.sleep(0.2)
    finally:
        for job in running:
            if job.process:
                job.process.terminate()
        for job in running:
            if job.process:
                job.process.wait()
    return failed


def _figures(job: Job, out: Path) -> str:
    rows = [row for row in done(out) if (row["job"], row["seed"]) == (job.recipe.name, job.seed)]
    return ", ".join(f"{row['recipe']} {_number(row, 'accuracy'):.3f}" for row in rows if "accuracy" in row)


def _started(job: Job, out: Path, script: Sequence[str | Path]) -> Job:
    command = [sys.executable, *map(str, script), "--job", job.recipe.name, str(job.seed)]
    with job.log(out).open("wb") as log:
        threads = os.environ.get("OMP_NUM_THREADS", "1")
        path = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": threads,
            "PYTHONPATH": path,
        }  # for the fold processes too
        job.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
    job.started = time.time()
    return job


def table(rows: Sequence[Row]) -> str:
    """The recipes and the gains in Markdown."""
    lines = [
        "| recipe | seeds | steps | accuracy | macro-F1 | accuracy of each seed |",
        "|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(str(row["recipe"]) for row in rows if "accuracy" in row):
        own = sorted((row for row in rows if row["recipe"] == name), key=lambda row: _number(row, "seed"))
        means = [
            f"{sum(_number(row, key) for row in own) / len(own):.3f}" for key in ("accuracy", "macro_f1")
        ]
        each = ", ".join(f"{_number(row, 'accuracy'):.3f}" for row in own)
        seeds = _ranges([int(_number(row, "seed")) for row in own])
        lines.append(f"| {name} | {seeds} | {own[0]['steps']} | {' | '.join(means)} | {each} |")
    bases = [_number(row, "base") for row in rows if row.get("base") is not None]
    if bases:
        lines.append(f"\nBare base {sum(bases) / len(bases):.3f}, mean over the tests.")
    return "\n".join([*lines, "", *_gains(rows)])


class Gain(NamedTuple):
    """A mean difference over seeds, with its interval as text, and its sign where the interval is clear of 0.

    `p` is that of Student's test; None for one seed, and for seeds whose differences are all the same.
    """

    text: str
    sign: int
    p: float | None = None


def _gains(rows: Sequence[Row]) -> list[str]:
    """The table of the comparisons that have seeds of both recipes."""
    lines = [
        "| of | recipe | against | seeds | gain in accuracy | gain in macro-F1 | shown | p (Holm) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    found: dict[str, dict[str, Gain]] = {}  # the line's first cells → score → gain
    for family, name, against in comparisons():
        first, second = _by_seed(rows, name), _by_seed(rows, against)
        if seeds := sorted(first.keys() & second.keys()):
            found[f"| {family} | {name} | {against} | {len(seeds)} |"] = {
                key: _gain([(first[seed].get(key), second[seed].get(key)) for seed in seeds])
                for key in SCORES
            }
    adjusted = {
        key: holm({line: gains[key].p or 0.0 for line, gains in found.items() if gains[key].p is not None})
        for key in SCORES
    }
    for line, gains in found.items():
        cells = [gains["accuracy"].text, gains["macro_f1"].text]
        if gains["error"].text:
            cells = [f"error of the estimate {gains['error'].text}", ""]
        p = ", ".join(f"{adjusted[key][line]:.3f}" for key in SCORES if line in adjusted[key])
        lines.append(f"{line} {' | '.join(cells)} | {_shown(gains)} | {p} |")
    return lines


def _ranges(seeds: Sequence[int]) -> str:
    """Sorted seeds as "0-3, 6"."""
    starts = [seed for seed in seeds if seed - 1 not in seeds]
    ends = [seed for seed in seeds if seed + 1 not in seeds]
    return ", ".join(
        str(start) if start == end else f"{start}-{end}" for start, end in zip(starts, ends, strict=True)
    )


def _shown(gains: Mapping[str, Gain]) -> str:
    """Which differences are more than chance explains."""
    words = {
        "accuracy": {1: "accuracy gained", -1: "accuracy lost"},
        "macro_f1": {1: "macro-F1 gained", -1: "macro-F1 lost"},
        "error": {1: "error larger", -1: "error smaller"},
    }
    return ", ".join(word[gains[key].sign] for key, word in words.items() if gains[key].sign) or "no"


def _by_seed(rows: Sequence[Row], name: str) -> dict[int, Row]:
    return {int(_number(row, "seed")): row for row in rows if row["recipe"] == name}


def _gain(pairs: Sequence[tuple[object, object]]) -> Gain:
    """The mean difference in points with Student's interval over the seeds."""
    differences = [100 * (float(str(one)) - float(str(other))) for one, other in pairs if one is not None]
    if not differences:
        return Gain("", 0)
    found = spread(differences)
    interval = found["mean_ci95"]
    if interval is None:
        return Gain(f"{found['mean']:+.1f}", 0)
    low, high = interval
    text = f"{found['mean']:+.1f} [{low:+.1f}, {high:+.1f}]"
    if high - low < SAME:
        return Gain(text, 0)
    from scipy.stats import ttest_1samp

    return Gain(text, (low > 0) - (high < 0), float(ttest_1samp(differences, 0).pvalue))


def _number(row: Row, key: str) -> float:
    return float(str(row[key]))


def chosen(settings: Settings, only: str) -> list[Recipe]:
    """The recipes whose family or name contains a text, and those they are compared with."""
    compared = {against for family, name, against in comparisons() if only in f"{family} {name}"}
    return [
        recipe
        for recipe in recipes(settings)
        if only in f"{recipe.family} {recipe.name}" or recipe.name in compared
    ]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    families = ", ".join(sorted({recipe.family for recipe in recipes(Settings())}))
    parser.add_argument(
        "--only",
        default="",
        help=f"recipes whose family or name contains this text, and those they are compared with; families: {families}",
    )
    parser.add_argument("--workers", type=int, default=1, help="cores to use: a process each")
    parser.add_argument("--out", type=Path, default=Path("gains"))
    parser.add_argument(
        "--set",
        nargs="*",
        default=[],
        metavar="NAME=VALUE",
        help=f"other sizes, of {', '.join(asdict(Settings()))}",
    )
    parser.add_argument("--job", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    try:
        words = [word.partition("=") for word in given.set]
        settings = Settings(**{name: json.loads(value) for name, _, value in words})
    except (TypeError, ValueError) as error:
        parser.error(f"--set {' '.join(given.set)}: {error}: give NAME=NUMBER with the names of --help")
    if not any(given.only in f"{recipe.family} {recipe.name}" for recipe in recipes(settings)):
        parser.error(f"--only {given.only}: there is no such recipe: give a part of a name, or of {families}")
    hold_to(asdict(settings), given.out)
    if given.job:
        keep(next(one for one in recipes(settings) if one.name == given.job[0]), int(given.job[1]), given.out)
        return 0
    have = {(row["job"], row["seed"]) for row in done(given.out)}
    wanted = [
        Job(recipe, seed)
        for seed in given.seeds  # whole seeds first, so that an interrupted run has pairs
        for recipe in chosen(settings, given.only)
        if (recipe.name, seed) not in have
    ]
    failed = run_jobs(wanted, given.workers, given.out, [Path(__file__), *sys.argv[1:]])
    if rows := done(given.out):
        print(table(rows))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
