"""`medqlora tune`: a search for options of a fit, judged by its validation; resumable, on one GPU or several."""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from medqlora.commands.arguments import Parser
from medqlora.commands.registry import Command
from medqlora.commands.tune_options import STUDY, Search
from medqlora.compat.argparse import option_names
from medqlora.config.check import check_options
from medqlora.config.space import Dimension, read_space, word
from medqlora.config.words import CommandLine, with_config
from medqlora.errors import InputError
from medqlora.utils.cache import why_not_writable

if TYPE_CHECKING:
    from optuna import Study

COMMAND = Command("tune", "a search for the best options of a fit, by validation", also=("search",), rank=56)

_EXAMPLES = """examples:
  medqlora tune --config configs/qlora.yaml --space space.yaml --trials 30 --out tune

space.yaml maps options to the values to try:
  model.learning_rate: {low: 1.0e-5, high: 1.0e-3, log: true}
  model.lora.r: [8, 16, 32]
  data.label_smoothing: {low: 0.0, high: 0.2, step: 0.05}

All other options are those of `medqlora fit`. Each trial is a fit; its value is the best validation score, and one
that falls behind the median is pruned. The same command again goes on with the search. The folder of --out then holds
report.html, best.yaml (the best options, to go on with) and study.db (Optuna's storage). The test set takes no part.
"""


def parser() -> argparse.ArgumentParser:
    """The command's own options."""
    made = Parser("tune", "Searches for the options of a fit with the best validation score.", _EXAMPLES)
    add = made.add_argument
    add("--space", required=True, metavar="FILE", help="YAML: option → values to try, see below")
    add(
        "--trials", type=int, default=30, metavar="N", help="fits in all, of all calls (default: %(default)s)"
    )
    add("--out", default="tune", metavar="DIR", help="folder of the search (default: %(default)s)")
    add(
        "--metric",
        default="val/macro_f1",
        metavar="NAME",
        help="the validation score to optimise (default: %(default)s)",
    )
    add(
        "--workers", type=int, default=1, metavar="N", help="trials at once, each on its own GPU (default: 1)"
    )
    add("--prune", choices=("median", "none"), default="median", help="end a trial that falls behind")
    add("--search_seed", type=int, default=0, metavar="N", help="of the drawn values (default: 0)")
    add("--worker", type=int, help=argparse.SUPPRESS)
    return made


def run(command: str, words: list[str]) -> int:
    """Raises InputError for wrong options, a space that names no options, or a study of another search."""
    options, rest = parser().parse_known_args(words)
    search = _search(options, with_config(rest))
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise InputError("tune needs Optuna, which is not installed: pip install 'medqlora[tune]'") from error
    from medqlora.commands.tune_trials import done_trials, open_study, run_trials
    from medqlora.utils.locks import hold

    if options.worker is not None:
        run_trials(search, open_study(search), options.worker)
        return 0
    search.out.mkdir(parents=True, exist_ok=True)
    try:
        release = hold(search.out)
    except BlockingIOError as error:
        raise InputError(
            f"--out {search.out}: another `medqlora tune` is at work there: wait for it"
        ) from error
    try:
        study = open_study(search, first=True)
        if (done := len(done_trials(study))) and done < search.trials:
            print(f"Going on with {search.out}: {done} of {search.trials} trials are done", flush=True)
        if options.workers > 1:
            _run_workers(options.workers, words)
        else:
            run_trials(search, study)
        return _finish(search, study)
    finally:
        release()


def _search(options: argparse.Namespace, rest: list[str]) -> Search:
    """The search, checked before anything heavy is imported.

    Raises:
        InputError: an option is wrong.
    """
    for name in ("trials", "workers"):
        if getattr(options, name) < 1:
            raise InputError(f"--{name} is {getattr(options, name)}: it has to be at least 1")
    if not options.metric.startswith("val/"):
        raise InputError(
            f"--metric {options.metric}: a search is judged by validation alone: give a score like val/macro_f1"
        )
    space = read_space(options.space)
    line = CommandLine.parse(rest)
    for name in ("ckpt_path", "trainer.default_root_dir", "checkpoint.monitor"):
        if line.text(name) is not None:
            fix = (
                "--metric names the score"
                if name == "checkpoint.monitor"
                else "each trial is a new run under --out"
            )
            raise InputError(f"--{name}: {fix}: leave it out")
    check_options("fit", rest, option_names(parser()), files=True)
    _check_comparable(options, space, line)
    for name, dimension in space.items():
        for value in dimension.ends:
            _check_value(options.space, rest, word(name, value))
    out = Path(options.out).expanduser()
    if why := why_not_writable(out):
        raise InputError(f"--out {options.out}: can't be written ({why}): give another folder")
    return Search(
        words=tuple(rest),
        space=space,
        trials=options.trials,
        metric=options.metric,
        out=out,
        prune=options.prune,
        seed=options.search_seed,
    )


def _check_comparable(options: argparse.Namespace, space: Mapping[str, Dimension], line: CommandLine) -> None:
    """Raises InputError for a space whose trials would be judged by different questions or different texts."""
    if "data.seed" in space and line.value("data.validation_samples") is not None:
        raise InputError(
            f"{options.space}: data.seed draws the questions of --data.validation_samples, and trials that validate on "
            "other questions can't be compared: leave one of them out"
        )
    texts = [name for name in ("data.rationale", "data.prompt") if name in space]
    if texts and options.metric == "val/loss":
        raise InputError(
            f"--metric val/loss: {texts[0]} changes the texts that it is the loss of, so trials can't be compared by "
            "it: use val/macro_f1 or val/accuracy"
        )


def _check_value(file: str, rest: list[str], option: str) -> None:
    try:
        check_options("fit", [*rest, option])
    except InputError as error:
        raise InputError(f"{file}: {error}") from error


def _run_workers(count: int, words: list[str]) -> None:
    """Runs `count` processes, each with a GPU of its own where there are GPUs.

    Raises:
        InputError: one of them failed.
    """
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    visible = [str(number) for number in range(count)] if given is None else given.split(",")
    if given and len(visible) < count:
        raise InputError(
            f"--workers {count}: CUDA_VISIBLE_DEVICES names {len(visible)} GPUs: use at most as many"
        )
    processes = []
    for number in range(count):
        device = visible[number] if number < len(visible) else ""
        command = [sys.executable, "-m", "medqlora", "tune", *words, f"--worker={number}"]
        processes.append(subprocess.Popen(command, env={**os.environ, "CUDA_VISIBLE_DEVICES": device}))
    try:
        codes = [process.wait() for process in processes]
    except BaseException:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()
        raise
    if any(codes):
        raise InputError(
            f"--workers: {sum(map(bool, codes))} of {count} ended on an error, see above: put it right, and run the "
            "same command again to go on"
        )


def _finish(search: Search, study: "Study") -> int:
    """Writes report and best options, and says where they are."""
    from medqlora.commands.tune_report import write_search_report
    from medqlora.commands.tune_trials import best_trial

    best = best_trial(study)
    if best is None:
        raise InputError(f"--space: no trial was finished: see {search.out / STUDY} and the messages above")
    page = write_search_report(search, study, best)
    chosen = ", ".join(f"{name} {json.dumps(value)}" for name, value in best.params.items())
    print(f"Best:   {search.metric} {best.value:.4f}, trial {best.number}: {chosen}")
    print(f"Report: {page}\nNext:   {search.next_fit()}", flush=True)
    return 0
