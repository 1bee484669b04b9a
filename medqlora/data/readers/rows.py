"""Types of the readers: rows with their source location, and the description of a file's format."""

import codecs
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from medqlora.data.wording import shown
from medqlora.errors import InputError


class Row(NamedTuple):
    """One row of a file.

    Attributes:
        where: the location: "file:line" (for Parquet and Arrow the row number), "file: item 3" or "file: key".
        number: the line, or the row number, counted from 1.
        key: the key of the row in a JSON object; "line.index" if several rows share a line; "shard.number" if
            the table has several shards; otherwise None.
        value: column → value; all values of a table are text.
        file: the file; "" for a row without a file.
    """

    where: str
    number: int
    key: str | None
    value: Mapping[str, object]
    file: str = ""


class Table(NamedTuple):
    """All rows of a file or a folder.

    Attributes:
        rows: the rows, in file order.
        remark: the detected format, for the user: "ward.csv: 60 rows, ';'-separated, cp1252".
    """

    rows: list[Row]
    remark: str


class Part(NamedTuple):
    """The rows of one file, and the terms for `Table.remark`.

    Attributes:
        rows: the rows.
        words: the format ("';'-separated"), then other detected properties ("sheet 'Ward'").
    """

    rows: list[Row]
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """Options of the user for reading a file.

    Attributes:
        encoding: Python's name of the encoding of text files; None to detect it.
        sheet: the sheet of a workbook; None for the first visible sheet.
    """

    encoding: str | None = None
    sheet: str | None = None

    def __post_init__(self) -> None:
        """
        Raises:
            InputError: the encoding is unknown.
        """
        if self.encoding is None:
            return
        try:
            codec = codecs.lookup(self.encoding)
            "".encode(codec.name)  # rejects "hex" and "rot13", which are not text codecs
        except (LookupError, ValueError) as error:
            raise InputError(
                f"--data.source.encoding: {shown(self.encoding)} is not an encoding that Python knows: give utf-8, "
                "utf-16, cp1252, latin-1 or another of its names"
            ) from error


def type_name(value: object) -> str:
    """The JSON name of the type of a value."""
    names = {dict: "object", list: "list", str: "string", bool: "boolean", int: "number", float: "number"}
    return names.get(type(value), "null")
