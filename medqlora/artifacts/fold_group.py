"""The layout of a cross-validation's folder `lightning_logs/cv_N/`: the only place that knows the names in it.

group.json              the folds, and the options that they share
version_K/              the run of fold K, as every run's folder: cv_N is a log folder too
version_K/out_of_fold.jsonl   fold K's validation questions, as its adapter scores them
fold_K.log              what fold K said, where folds run side by side
cv_report.json, cv_report.html   the report
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from medqlora.artifacts.run_folder import RunFolder
from medqlora.errors import InputError
from medqlora.utils.files import make_numbered, now, number_of, write_text
from medqlora.utils.slurm import slurm_job

_PREFIX, _RECORD = "cv_", "group.json"
REPORT, REPORT_PAGE = "cv_report.json", "cv_report.html"


@dataclass(frozen=True)
class GroupRecord:
    """`group.json`.

    Attributes:
        folds: of the group, in their order.
        base: the base model as the user named it.
        options: what defines the folds' runs: option → value, and configuration → digest.
        started: a UTC time.
        slurm_job: see `slurm_job`.
    """

    folds: tuple[int, ...]
    base: str
    options: Mapping[str, str]
    started: str = field(default_factory=now)
    slurm_job: str | None = field(default_factory=slurm_job)


@dataclass(frozen=True)
class FoldGroup:
    """A cross-validation's folder.

    Attributes:
        path: the folder.
    """

    path: Path

    @classmethod
    def new(cls, root: Path, record: GroupRecord) -> "FoldGroup":
        """Makes the next `cv_N` under `root`; two that start together get a folder each.

        Raises:
            OSError: the folder can't be made or written.
        """
        root.mkdir(parents=True, exist_ok=True)
        group = cls(make_numbered(root, _PREFIX))
        write_text(group.path / _RECORD, json.dumps(asdict(record), indent=2) + "\n")
        return group

    @classmethod
    def all(cls, root: Path) -> "list[FoldGroup]":
        """The groups under `root`, the newest first; none where it can't be read."""
        try:
            found = [cls(path) for path in root.iterdir() if path.name.startswith(_PREFIX)]
        except OSError:
            return []
        return sorted((group for group in found if group.path.is_dir()), key=lambda group: -group.number)

    @property
    def number(self) -> int:
        """N of `cv_N`; -1 for another name."""
        return number_of(self.path, _PREFIX)

    @property
    def is_group(self) -> bool:
        """Whether the folder holds a group's record."""
        return (self.path / _RECORD).is_file()

    def record(self, option: str) -> GroupRecord:
        """The group's record.

        Args:
            option: what named the folder, for messages.

        Raises:
            InputError: it is missing or damaged.
        """
        file = self.path / _RECORD
        try:
            stored = json.loads(file.read_text(encoding="utf-8"))
            folds = tuple(map(int, stored["folds"]))
            options = {str(name): str(value) for name, value in stored["options"].items()}
            return GroupRecord(
                folds, str(stored["base"]), options, str(stored["started"]), stored.get("slurm_job")
            )
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            damage = f"{_RECORD} can't be read ({type(error).__name__})"
            if not file.exists():
                damage = f"it holds no {_RECORD}" if self.path.is_dir() else "there is no such folder"
            raise InputError(
                f"{option} {self.path}: {damage}: name a folder that `medqlora fit --folds` made"
            ) from error

    def run(self, fold: int) -> RunFolder:
        """The folder of a fold's run."""
        return RunFolder.numbered(self.path, fold)

    def out_of_fold(self, fold: int) -> Path:
        """The file with a fold's out-of-fold predictions."""
        return self.run(fold).path / "out_of_fold.jsonl"

    def log(self, fold: int) -> Path:
        """The file with what a fold's run said in a process of its own."""
        return self.path / f"fold_{fold}.log"

    def is_finished(self, fold: int) -> bool:
        """Whether a fold's run has come to its end, with its adapter."""
        run = self.run(fold)
        return (run.read_record() or {}).get("state") == "finished" and run.has_adapter

    def finished(self, folds: Sequence[int]) -> list[int]:
        """Those of the folds that have come to their end."""
        return [fold for fold in folds if self.is_finished(fold)]

    @property
    def report(self) -> Path:
        return self.path / REPORT


def group_adapters(given: str, option: str) -> list[str] | None:
    """The adapters of a cross-validation's folder, in the folds' order; None where `given` is no such folder.

    Raises:
        InputError: its record is damaged, or a fold has not come to its end.
    """
    group = FoldGroup(Path(given).expanduser())
    if not group.is_group:
        return None
    folds = group.record(option).folds
    missing = [fold for fold in folds if not group.is_finished(fold)]
    if missing:
        raise InputError(
            f"{option} {given}: fold {missing[0]} has not come to its end: go on with it by `medqlora fit --folds … "
            f"--ckpt_path {given}`"
        )
    return [str(group.run(fold).adapter) for fold in folds]
