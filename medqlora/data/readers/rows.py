"""What a reader gives: rows that know where they stand, and a line that says how the file was understood."""

import codecs
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from medqlora.data.wording import shown
from medqlora.errors import InputError


class Row(NamedTuple):
    """One row of a file.

    Attributes:
        where: "file:line" (JSON lines, tables, and the row's number for Parquet and Arrow), "file: item 3"
            or "file: key".
        number: the line, or the row counted from 1.
        key: the key that the row has in a JSON object; the line and the place on it where several rows stand on
            one, or the shard and the number where a table has several shards; None elsewhere.
        value: column → value; the values of a table are all text.
        file: the file alone; "" where the row is from none.
    """

    where: str
    number: int
    key: str | None
    value: Mapping[str, object]
    file: str = ""


class Table(NamedTuple):
    """All rows of a file or a folder.

    Attributes:
        rows: the rows, in the file's order.
        remark: how the file was understood, for the person at the terminal: "ward.csv: 60 rows,
            ';'-separated, cp1252".
    """

    rows: list[Row]
    remark: str


class Part(NamedTuple):
    """The rows of one file, with the words for `Table.remark`.

    Attributes:
        rows: the rows.
        words: the form ("';'-separated"), then whatever else was understood ("sheet 'Ward'").
    """

    rows: list[Row]
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """What a user may say about a file.

    Attributes:
        encoding: the encoding of text files, as Python names it; detected when None.
        sheet: the sheet of a workbook; the first when None.
    """

    encoding: str | None = None
    sheet: str | None = None

    def __post_init__(self) -> None:
        """
        Raises:
            InputError: no such encoding.
        """
        if self.encoding is None:
            return
        try:
            codec = codecs.lookup(self.encoding)
            "".encode(codec.name)  # "hex" and "rot13" are codecs too, but not of text
        except (LookupError, ValueError) as error:
            raise InputError(
                f"--data.source.encoding: {shown(self.encoding)} is no encoding that Python knows: give utf-8, "
                "utf-16, cp1252, latin-1 or another of its names"
            ) from error


def type_name(value: object) -> str:
    """What JSON calls the type of a value."""
    names = {dict: "object", list: "list", str: "string", bool: "boolean", int: "number", float: "number"}
    return names.get(type(value), "null")
