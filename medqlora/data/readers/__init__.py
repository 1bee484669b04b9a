"""Reads data files into rows with their file and line; malformed input raises `InputError`.

Formats: tables (.csv, .tsv, .txt, .xlsx), JSON (.jsonl, .json), Parquet and Arrow, each also compressed, and
the folders of Hugging Face `datasets`. The content decides the format; the extension only breaks ties.
`medqlora.data.shapes` interprets the columns.
"""

from medqlora.data.readers.paths import data_files, fingerprint
from medqlora.data.readers.reading import (
    all_bad,
    read_bare_csv,
    read_json,
    read_published,
    read_rows,
    read_table,
)
from medqlora.data.readers.rows import ReadOptions, Row, Table

__all__ = [
    "ReadOptions",
    "Row",
    "Table",
    "all_bad",
    "data_files",
    "fingerprint",
    "read_bare_csv",
    "read_json",
    "read_published",
    "read_rows",
    "read_table",
]
