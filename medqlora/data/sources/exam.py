"""Exam benchmarks on the Hub and in their authors' files: up to three sets, with a test set of an official size."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

from medqlora.data import readers
from medqlora.data.readers import Row
from medqlora.data.sources import benchmark
from medqlora.data.sources.hub import read_hub
from medqlora.data.sources.source import Source
from medqlora.records import Record, Splits


class Exam(Source):
    """The common part of these benchmarks; a subclass says where its sets are and how a row is read.

    Args:
        test: a local copy of the test set; the Hub's when null.
        train: the training set, or "hub"; none when null.
        dev: the dev set, or "hub"; none when null.
        revision: the Hub's commit, branch or tag to read; the newest when null.
        allow_partial: accept an incomplete test set.
    """

    #: the repository on the Hub
    hub: str
    #: "train", "dev", "test" → the Hub's split
    splits: Mapping[str, str]

    def __init__(
        self,
        test: str | None = None,
        train: str | None = None,
        dev: str | None = None,
        revision: str | None = None,
        allow_partial: bool = False,
    ) -> None:
        self._paths = {"test": test, "train": train, "dev": dev}
        self._revision, self._allow_partial = revision, allow_partial
        #: a line on how each local file was read
        self._understood: list[str] = []

    def fingerprint(self) -> dict[str, object]:
        values = {**self._paths, "revision": self._revision, "allow_partial": self._allow_partial}
        local = {part: path for part, path in self._paths.items() if path not in (None, benchmark.HUB_WORD)}
        files = [file for part, path in local.items() for file in self._local_files(str(path), part)]
        return benchmark.fingerprint(self.name, values, files)

    def read(self) -> Splits:
        self._understood = []
        splits = Splits(*(self._part(part) for part in Splits._fields))
        self._check_size(splits.test)
        splits, shared = benchmark.kept_apart(splits, check=self.checks_test_questions)
        self.remarks = (*self._understood, *shared)
        return splits

    def _part(self, part: str) -> list[Record]:
        path = self._paths[part]
        if path is None and part != "test":
            return []
        return self._records(part, None if path == benchmark.HUB_WORD else path, f"--data.source.{part}")

    def _rows(self, part: str, path: str | None, option: str) -> list[Row]:
        """The rows of a local file, or of the Hub without one; a remark says how a file was read."""
        if path is None:
            return self._hub_rows(part, option)
        rows, understood = readers.read_published(path, option)
        self._understood.append(understood)
        return rows

    def _hub_rows(self, part: str, option: str, config: str | None = None) -> list[Row]:
        fix = f"pass a local copy: {option} FILE"
        return read_hub(self.hub, config, self.splits[part], self._revision, option, fix)

    def _check_count(self, count: int, official: int, what: str) -> None:
        origin = self._paths["test"] or self.hub
        benchmark.check_size(count, official, what, origin, allow_partial=self._allow_partial)

    def _local_files(self, path: str, part: str) -> Sequence[str | Path]:
        """The files that a part's path stands for."""
        return [path]

    @abstractmethod
    def _check_size(self, test: Sequence[Record]) -> None:
        """Raises InputError where the test set isn't the official one, or a part of it that was allowed."""

    @abstractmethod
    def _records(self, part: str, path: str | None, option: str) -> list[Record]:
        """The records of one part, from a file or folder that `option` named, or from the Hub without one."""
