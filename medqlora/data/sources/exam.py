"""Exam benchmarks that are on the Hub and in their authors' files: three sets, a test set of an official size."""

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
    """What such a benchmark has in common with the others; a subclass says where it is and how a row is read.

    Args:
        test: a local copy of the test set; the Hub's when null.
        train: the training set, or "hub"; none when null.
        dev: the dev set, or "hub"; none when null.
        revision: the Hub's commit, branch or tag to read; the newest when null.
        allow_partial: take a test file that lacks some questions.
    """

    #: the repository on the Hub
    hub: str
    #: part → the Hub's split
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
        #: how each local file was understood
        self._understood: list[str] = []

    def fingerprint(self) -> dict[str, object]:
        values = {**self._paths, "revision": self._revision, "allow_partial": self._allow_partial}
        given = {part: path for part, path in self._paths.items() if path not in (None, benchmark.HUB_WORD)}
        local = [file for part, path in given.items() for file in self._local_files(str(path), part)]
        return benchmark.fingerprint(self.name, values, local)

    def read(self) -> Splits:
        self._understood = []
        splits = Splits(*(self._part(part) for part in Splits._fields))
        self._check_size(splits.test)
        splits, shared = benchmark.kept_apart(splits, check=self.checks_test_questions)
        self.remarks = (*self._understood, *shared)
        return splits

    def _file_rows(self, path: str, option: str) -> list[Row]:
        """The rows of a local file; how it was understood becomes a remark."""
        rows, understood = readers.read_published(path, option)
        self._understood.append(understood)
        return rows

    def _part(self, part: str) -> list[Record]:
        path, option = self._paths[part], f"--data.source.{part}"
        if path is None and part != "test":
            return []
        if path is None or path == benchmark.HUB_WORD:
            return self._from_hub(part, option)
        return self._from_file(path, part, option)

    def _hub_rows(self, part: str, option: str, config: str | None = None) -> list[Row]:
        fix = benchmark.local_copy(option)
        return read_hub(self.hub, config, self.splits[part], self._revision, option, fix)

    def _check_count(self, found: int, official: int, what: str) -> None:
        place = self._paths["test"] or self.hub
        benchmark.check_size(found, official, what, place, allow_partial=self._allow_partial)

    def _local_files(self, path: str, part: str) -> Sequence[str | Path]:
        """The files that a part's path stands for."""
        return [path]

    @abstractmethod
    def _check_size(self, test: Sequence[Record]) -> None:
        """Raises InputError where the test set isn't the official one, or a part of it that was allowed."""

    @abstractmethod
    def _from_hub(self, part: str, option: str) -> list[Record]:
        """A part's records, from the Hub."""

    @abstractmethod
    def _from_file(self, path: str, part: str, option: str) -> list[Record]:
        """A part's records, from a file or folder that `option` named."""
