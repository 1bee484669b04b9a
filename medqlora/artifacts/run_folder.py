"""The layout of a run's folder `lightning_logs/version_N/`: the only place that knows the names in it.

config.yaml             the options of the run
run.json                the state of a fit, see `medqlora.artifacts.runs`
events.out.tfevents.*   TensorBoard's files
checkpoints/            resumable checkpoints, last.ckpt the newest
adapter/                the best checkpoint's adapter in PEFT's format
adapter_averaged/       the average of several validations' adapters, where `--average.count` asks for it
bad_records.jsonl       the records that were left out
test_report.json, report.html, predictions.jsonl, aggregate_report.json   what `test` and `predict` write
"""

import json
from dataclasses import dataclass
from pathlib import Path

from medqlora.utils.files import make_numbered, number_of

#: the folder of the runs
LOGS = "lightning_logs"
EVENTS = "events.out.tfevents.*"
#: PEFT's file that makes a folder an adapter's
ADAPTER_CONFIG = "adapter_config.json"
TEST_REPORT, AGGREGATE_REPORT = "test_report.json", "aggregate_report.json"
_PREFIX, _RECORD, _CHECKPOINTS = "version_", "run.json", "checkpoints"
#: the newest checkpoint, in `checkpoints/` or the folder of `--checkpoint.dirpath`
LAST_CHECKPOINT = "last.ckpt"


@dataclass(frozen=True)
class RunFolder:
    """One run's folder.

    Attributes:
        path: the folder, which may not exist yet.
    """

    path: Path

    @classmethod
    def of_checkpoint(cls, file: Path) -> "RunFolder | None":
        """The run that wrote a checkpoint; None where the file lies in no run's `checkpoints/`."""
        return cls(file.parent.parent) if file.parent.name == _CHECKPOINTS else None

    @classmethod
    def all(cls, root: Path) -> "list[RunFolder]":
        """The runs' folders under `root`, in no order.

        Raises:
            OSError: `root` can't be read.
        """
        return [cls(path) for path in root.iterdir() if path.name.startswith(_PREFIX) and path.is_dir()]

    @classmethod
    def numbered(cls, root: Path, number: int) -> "RunFolder":
        """`version_N` under `root`."""
        return cls(root / f"{_PREFIX}{number}")

    @classmethod
    def new(cls, root: Path) -> "RunFolder":
        """Makes the next `version_N` under `root`; two runs that start together get a folder each.

        Args:
            root: the log folder; made where only its last part is missing.

        Raises:
            OSError: the folder can't be made.
        """
        root.mkdir(exist_ok=True)
        return cls(make_numbered(root, _PREFIX))

    @property
    def number(self) -> int:
        """N of `version_N`; -1 for another name."""
        return number_of(self.path, _PREFIX)

    @property
    def is_named_as_a_run(self) -> bool:
        """Whether the folder's name begins as a run's."""
        return self.path.name.startswith(_PREFIX)

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def record_file(self) -> Path:
        return self.path / _RECORD

    @property
    def checkpoints(self) -> Path:
        return self.path / _CHECKPOINTS

    @property
    def last_checkpoint(self) -> Path:
        return self.checkpoints / LAST_CHECKPOINT

    @property
    def adapter(self) -> Path:
        return self.path / "adapter"

    @property
    def averaged_adapter(self) -> Path:
        return self.path / "adapter_averaged"

    @property
    def has_adapter(self) -> bool:
        """Whether `adapter/` is in PEFT's format."""
        return (self.adapter / ADAPTER_CONFIG).is_file()

    @property
    def bad_records(self) -> Path:
        return self.path / "bad_records.jsonl"

    @property
    def test_report(self) -> Path:
        return self.path / TEST_REPORT

    @property
    def finished_command(self) -> str | None:
        """The command whose result lies in the folder, "test" or "predict"; None without a result."""
        if self.test_report.is_file() or (self.path / AGGREGATE_REPORT).is_file():
            return "test"
        return "predict" if self.predictions().is_file() else None

    def predictions(self, number: int = 0) -> Path:
        """`predictions.jsonl`, or for another number `predictions-1.jsonl` and so on."""
        return self.path / f"predictions{f'-{number}' if number else ''}.jsonl"

    def free_predictions(self) -> Path:
        """The first of the prediction files that does not exist: `test` writes a file of that name too."""
        number = 0
        while (path := self.predictions(number)).exists():
            number += 1
        return path

    def events(self) -> list[Path]:
        """TensorBoard's files."""
        return list(self.path.glob(EVENTS))

    def read_record(self) -> dict[str, object] | None:
        """The content of `run.json`; None where no such file can be read."""
        try:
            record = json.loads(self.record_file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return None
        return record if isinstance(record, dict) else None
