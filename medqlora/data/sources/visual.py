"""The common part of the benchmarks with images: closed and open questions, and the images beside them."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from medqlora.data import fields
from medqlora.data.images import image_file, stored_image
from medqlora.data.readers import Row
from medqlora.data.sources.exam import Exam
from medqlora.data.sources.hub import read_hub
from medqlora.errors import InputError
from medqlora.records import ImageFile, Record

#: which questions are asked: those answered by yes or no, all others, or all as free answers
Asked = Literal["closed", "open", "all"]
YES_NO = ("yes", "no")
_ASKED = ("closed", "open", "all")


class VisualQuestions(Exam):
    """A benchmark of questions about images.

    Args:
        test: the test set: a local file, or the Hub's when null.
        train: the training set, or "hub"; none when null.
        dev: the dev set, or "hub"; none when null.
        images: the folder of the images that the files name; beside the file when null.
        questions: "closed" for the questions that are answered by yes or no, "open" for the others, as free answers,
            or "all" of them, as free answers.
        revision: the Hub's commit, branch or tag to read; the newest when null.
        allow_partial: accept an incomplete test set.
    """

    #: numbers of test questions of the published copies
    sizes: Sequence[int]
    #: a folder's usual name beside a file
    image_folder: str = ""
    #: the Hub's column of images
    hub_images: str | None = "image"

    def __init__(
        self,
        test: str | None = None,
        train: str | None = None,
        dev: str | None = None,
        images: str | None = None,
        questions: Asked = "closed",
        revision: str | None = None,
        allow_partial: bool = False,
    ) -> None:
        super().__init__(test, train, dev, revision, allow_partial)
        if questions not in _ASKED:
            raise InputError(f"--data.source.questions: {questions!r}: choose one of {', '.join(_ASKED)}")
        self._images, self._asked = images, questions
        self._read: dict[str, int] = {}
        self._files: dict[Path, ImageFile] = {}

    def fingerprint(self) -> dict[str, object]:
        return {**super().fingerprint(), "images": self._images, "questions": self._asked}

    def _hub_rows(self, part: str, option: str, config: str | None = None) -> list[Row]:
        if part not in self.splits:
            raise InputError(f"{option}: {self.name} has no {part} set: leave it out, or give a file")
        fix = f"pass a local copy: {option} FILE"
        return read_hub(self.hub, config, self.splits[part], self._revision, option, fix, self.hub_images)

    def _records(self, part: str, path: str | None, option: str) -> list[Record]:
        rows = [row for row in self._rows(part, path, option) if self._belongs(row, part)]
        self._read[part] = len(rows)
        records = []
        for index, row in enumerate(rows):
            if not self._wanted(row):
                continue
            asked = as_asked(self._record(row, f"{part}-{index:05d}", path), self._asked)
            if asked is not None:
                records.append(asked)
        return records

    def _check_size(self, test: Sequence[Record]) -> None:
        count, official = self._read["test"], max(self.sizes)
        if count not in self.sizes:
            self._check_count(count, official, f"{self.name}'s test set")

    def _belongs(self, row: Row, part: str) -> bool:
        """Whether a row of a file with several sets is of this one."""
        return True

    def _wanted(self, row: Row) -> bool:
        """Whether a row of the set is asked."""
        return True

    @abstractmethod
    def _record(self, row: Row, default_id: str, path: str | None) -> Record:
        """The record of a row, its answer as the file has it and without labels."""

    def _image(self, row: Row, key: str, path: str | None) -> ImageFile:
        """The image of a row: bytes, or a name in the image folder.

        Raises:
            InputError: there is no such image.
        """
        value = row.value.get(key)
        where = f"{row.where}: {key}"
        content = value.get("bytes") if isinstance(value, Mapping) else None
        if isinstance(content, bytes):
            return stored_image(content, where)
        name = value.get("path") if isinstance(value, Mapping) else value
        file = self._folder(path) / fields.text(row, key, name, needed=True)
        if file not in self._files:
            self._files[file] = image_file(file, where)
        return self._files[file]

    def _folder(self, path: str | None) -> Path:
        if self._images is not None:
            return Path(self._images).expanduser()
        return Path(path or "").expanduser().parent / self.image_folder


def as_asked(record: Record, asked: Asked) -> Record | None:
    """The record with its labels, or as a free answer; None for a question that isn't asked."""
    answer = str(record.answer).strip()
    closed = answer.casefold().rstrip(".") in YES_NO
    if asked == "all":
        return replace(record, answer=answer, labels=())
    if closed != (asked == "closed"):
        return None
    if not closed:
        return replace(record, answer=answer, labels=())
    return replace(record, answer=answer.casefold().rstrip("."), labels=YES_NO)


def answer_text(row: Row, key: str) -> str:
    """A row's answer; numbers are written as texts.

    Raises:
        InputError: it is missing.
    """
    value = row.value.get(key)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)
    return fields.text(row, key, value, needed=True)
