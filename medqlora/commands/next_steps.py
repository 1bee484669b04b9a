"""What to type after a fit: each line works as it stands, and names nothing that isn't there."""

import shlex
from pathlib import Path

from medqlora.artifacts.run_folder import RunFolder


def best_line(monitor: str, score: float, majority: float | None, checkpoint: str) -> str:
    """The best validation score of a fit.

    Args:
        monitor: the score's name, with the sample of questions where it is of one.
        score: its best value.
        majority: accuracy of always giving the most frequent answer; None for free answers.
        checkpoint: name of the checkpoint's file.
    """
    line = f"Best {monitor}: {score:.4f}  ({checkpoint})"
    if majority is None or score > majority or not monitor.partition(",")[0].endswith("accuracy"):
        return line
    return f"{line}, no better than always the most frequent answer (majority answer: {majority:.4f})"


def after_fit(run: RunFolder, adapter: Path | None, *, tests: bool) -> list[str]:
    """The commands that go on from a finished fit.

    The run's own `config.yaml` has every option, those of the command line too.

    Args:
        run: the run's folder.
        adapter: its adapter; None where it left none.
        tests: whether the data have test questions.
    """
    commands = []
    if tests and adapter is not None and run.config.is_file():
        commands.append(["medqlora", "test", "--config", str(run.config), "--model.adapter", str(adapter)])
    if run.events():
        commands.append(["tensorboard", "--logdir", str(run.path.parent)])
    heads = ["Next:", *[""] * len(commands)]
    return [f"{head:<8} {shlex.join(words)}" for head, words in zip(heads, commands, strict=False)]
