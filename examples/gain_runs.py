"""What the recipes of the gains do with medqlora: a fit, five folds, a test."""

import json
from collections.abc import Sequence
from pathlib import Path

from medqlora.cli import main as medqlora

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
