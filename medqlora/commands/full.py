"""`medqlora full`: fit, then test of the best adapter, then one summary."""

from pathlib import Path
from typing import TYPE_CHECKING

from medqlora.commands.registry import Command
from medqlora.commands.verbs import run_verb, shows_help
from medqlora.config.words import CommandLine, with_config
from medqlora.errors import InputError

if TYPE_CHECKING:
    from medqlora.commands.run import Run

COMMAND = Command("full", "fit, then test the best adapter, then one summary", rank=110)


def run(command: str, words: list[str]) -> int:
    """Trains and tests with the same options; see `medqlora.commands.verbs.run` for what it raises."""
    if shows_help(command, "fit", words):
        return 0
    words = with_config(words)
    fit = run_verb(["fit", *words], command)
    kept = CommandLine.parse(words).without("ckpt_path", "model.adapter").words
    # the first process has written it, and tells the others
    adapter = fit.trainer.strategy.broadcast(fit.adapter_folder)
    if adapter is None and CommandLine.parse(words).has("trainer.fast_dev_run"):
        raise InputError("--trainer.fast_dev_run: it leaves no adapter for `full` to test: pass it to `fit`")
    if adapter is None:
        raise RuntimeError("the fit left no adapter to test: what it said above names the reason")
    test = run_verb(["test", *kept, f"--model.adapter={adapter}"], command)
    folder = Path(str(test.trainer.log_dir))  # asked by all processes: the first one tells
    if not test.trainer.is_global_zero:  # the report is the first one's
        return 0
    from medqlora.utils.console import say

    for line in summary(fit, test, folder):
        say(line)
    return 0


def summary(fit: "Run", test: "Run", folder: Path) -> list[str]:
    """The lines of the summary: what was trained, and its score.

    Args:
        fit, test: the finished runs.
        folder: of the test's report.
    """
    from medqlora.evaluation.report.wording import p_value

    trainable, total = fit.model.parameter_counts
    report = test.report.scores
    lines = ["", "Summary"]
    lines.append(f"  base       {fit.model.backend.base}")
    lines.append(f"  trained    {trainable:,} of {total:,} parameters, {fit.trainer.global_step} steps")
    lines.append(f"  data       {len(fit.datamodule.train)} training questions, {report.n} test questions")
    free = report.decided_by == "exact_match"
    low, high = report.more["token_f1_ci95"] if free else report.accuracy_ci95
    value = report.more["token_f1"] if free else report.accuracy
    lines.append(f"  {'token F1' if free else 'accuracy':<9}  {value:.1%} (95% {low:.1%} to {high:.1%})")
    if report.base and free:
        lines.append(f"  bare base  {report.base['token_f1']:.1%}")
    elif report.base:
        p = "-" if report.mcnemar_p is None else p_value(report.mcnemar_p)
        lines.append(f"  bare base  {report.base['accuracy']:.1%} (McNemar p {p})")
    lines.append(f"  adapter    {fit.adapter_folder}")
    lines.append(f"  report     {folder / 'report.html'}")
    return lines
