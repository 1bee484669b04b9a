"""The options of the callbacks that belong to every run."""

from dataclasses import dataclass
from typing import Literal

from medqlora.errors import InputError

#: what every answer ends with
NOTE = "Not medical advice; consult a healthcare professional."


@dataclass(frozen=True)
class CheckpointOptions:
    """Checkpoints, and the export of the best adapter; under `--checkpoint.`.

    Args:
        monitor: the validation score that decides which checkpoint is best, of equal ones the earliest. Null is
            `val/accuracy`; where the validation questions have free answers `val/token_f1`, of equal ones the lowest
            `val/loss`. Without validation the last checkpoint is the best.
        mode: whether a higher or a lower score is better; null follows the score.
        save_top_k: how many of the best are kept, -1 for all.
        every_n_train_steps: update `last.ckpt` every so many steps; it is also written before and after each
            validation, and at the end.
        dirpath: folder of the checkpoints; null for `checkpoints/` in the run's folder.
    """

    monitor: str | None = None
    mode: Literal["max", "min"] | None = None
    save_top_k: int = 1
    every_n_train_steps: int | None = None
    dirpath: str | None = None

    def check(self) -> None:
        """Raises InputError for numbers that can't be."""
        if self.save_top_k < -1:
            raise InputError(
                f"--checkpoint.save_top_k {self.save_top_k}: it has to be at least -1, which keeps all"
            )
        if self.every_n_train_steps is not None and self.every_n_train_steps < 1:
            raise InputError(
                f"--checkpoint.every_n_train_steps {self.every_n_train_steps}: it has to be at least 1"
            )


@dataclass(frozen=True)
class AverageOptions:
    """The average of several adapters of a run, beside its best one; under `--average.`.

    Args:
        count: at the end, average the adapters of this many validations, validate the result, and write it to
            `adapter_averaged/`; 0 averages none. Stochastic weight averaging (Izmailov et al., 2018,
            https://arxiv.org/abs/1803.05407) gained 0.5 to 1 point on images; with a rate that falls to 0 little is
            left of it, so use `model.lr_scheduler: constant`.
        of: "best" takes the validations with the best `checkpoint.monitor`, "last" the newest.
    """

    count: int = 0
    of: Literal["best", "last"] = "best"

    def check(self) -> None:
        """Raises InputError for a number that can't be."""
        if self.count < 0 or self.count == 1:
            raise InputError(f"--average.count {self.count}: give 0 for none, or at least 2")
        if self.of not in ("best", "last"):
            raise InputError(f"--average.of {self.of}: choose one of best, last")


@dataclass(frozen=True)
class GPUMemoryOptions:
    """Memory of each phase; under `--gpu_memory.`.

    Args:
        log: also send the figures to the loggers, as `memory/<phase>/<figure>_gib` (in TensorBoard under `x-memory`).
    """

    log: bool = True


@dataclass(frozen=True)
class ProgressOptions:
    """The progress bar; under `--progress.`.

    Args:
        refresh_rate: steps between refreshes; 0 hides the bar.
        leave: keep the bar of each finished epoch on the screen.
    """

    refresh_rate: int = 1
    leave: bool = False


@dataclass(frozen=True)
class ReportOptions:
    """The report of `test`; under `--report.`.

    Args:
        allow_overlap: report test questions that the adapter was trained on instead of refusing them.
        normalisation: how the labels' log-likelihoods are compared: "none" as they are (as lm-evaluation-harness does),
            "length" by the token.
        prior_correction: compare them less those of the prompt without a question in it.
        live: of a merged model, the run folder of a test of the live adapter, as the paired comparison; null for the
            newest one in the log folder, where there is one.
    """

    allow_overlap: bool = False
    normalisation: Literal["none", "length"] = "none"
    prior_correction: bool = False
    live: str | None = None


@dataclass(frozen=True)
class AnswersOptions:
    """The answers file of `predict`; under `--answers.`.

    Args:
        path: the file to write, a table for the endings .csv and .parquet, else a line of JSON each; null for a new
            `predictions.jsonl` in the run's folder. An interrupted run is continued after its last whole answer.
        note: text that every answer ends with; another wording, but never none.
    """

    path: str | None = None
    note: str = NOTE
