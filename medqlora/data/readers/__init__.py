"""Data files to rows, each of which knows where it stands; what is malformed gets one clear message.

Tables (.csv, .tsv, .txt, .xlsx), JSON in its many shapes (.jsonl, .json), Parquet, Arrow, each also compressed,
and the folders of Hugging Face's `datasets`. Content decides, the extension only between equals. What a column
means is not known here.
"""

from medqlora.data.readers.places import data_files, fingerprint
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
