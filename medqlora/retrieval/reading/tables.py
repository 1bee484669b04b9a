"""JSONL, CSV and TSV with a document a row, and PubMedQA's JSON; read row by row.

Source: the user's file. Rows as JSONL; a CSV has the same columns, and BEIR's `corpus.jsonl` needs no mapping:

    {"_id": "31715", "title": "Aspirin in …", "text": "We randomised …", "pmid": "31715909", "year": 2019}
    {"id": "t7", "contexts": ["We randomised …", "The pain …"], "labels": ["METHODS", "RESULTS"], "mesh": ["Pain"]}
"""

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import BinaryIO, NamedTuple

from medqlora.errors import InputError
from medqlora.retrieval.documents import Document, Entry, Section, is_retraction_type

#: field → the columns that it is read from, the first that a row has
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "id": ("id", "_id", "doc_id", "docid", "pubid", "pmid", "PMID"),
    "title": ("title", "Title"),
    "text": ("text", "abstract", "contents", "content", "contexts", "context", "body"),
    "labels": ("labels", "context_labels"),
    "pmid": ("pmid", "PMID", "pubid"),
    "pmcid": ("pmcid", "PMCID"),
    "doi": ("doi", "DOI"),
    "journal": ("journal",),
    "year": ("year", "YEAR"),
    "types": ("types", "publication_types"),
    "mesh": ("mesh", "meshes", "MESHES", "mesh_terms"),
    "licence": ("licence", "license"),
    "retracted": ("retracted",),
}
#: characters of a line that no document has
_LONGEST = 64 << 20
_YEAR = re.compile(r"(1[5-9]\d\d|20\d\d)")
_TRUE = ("1", "true", "yes", "y")


class Row(NamedTuple):
    """A row with where it stands, "file:line"."""

    where: str
    values: Mapping[str, object]


#: takes the message on a row that can't be used; raises it, or notes it and lets the reading go on
OnBad = Callable[[InputError], None]


def read_jsonl(stream: BinaryIO, where: str, fields: Mapping[str, str], on_bad: OnBad) -> Iterator[Entry]:
    """A document for each line that holds an object.

    Args:
        stream: the file, unpacked.
        where: its name, for messages and keys.
        fields: field → column, where they differ from `COLUMNS`.
        on_bad: see `OnBad`.

    Raises:
        InputError: a column of `fields` is missing, or what `on_bad` raises.
    """
    name = where.replace("\\", "/").rpartition("/")[2]
    number = 0
    while line := stream.readline(_LONGEST):
        number += 1
        if not line.strip():
            continue
        place = f"{where}:{number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            what = "longer than any document" if len(line) >= _LONGEST else f"not JSON ({error})"
            on_bad(
                InputError(f"{place}: {what}: correct the line, or leave it out with --on_bad_record skip")
            )
            continue
        if not isinstance(row, dict):
            on_bad(
                InputError(f"{place}: no object: write one like " + '{"id": "1", "title": "…", "text": "…"}')
            )
            continue
        yield from _documents(Row(place, row), name, fields, on_bad)


def read_csv(
    stream: BinaryIO, where: str, delimiter: str, fields: Mapping[str, str], on_bad: OnBad
) -> Iterator[Entry]:
    """A document for each row below the header; arguments and errors as `read_jsonl`."""
    name = where.replace("\\", "/").rpartition("/")[2]
    csv.field_size_limit(_LONGEST)
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
    rows = csv.DictReader(text, delimiter=delimiter)
    try:
        for row in rows:
            place = f"{where}:{rows.line_num}"
            if None in row:
                on_bad(InputError(f"{place}: more cells than the header has columns: quote the cells"))
                continue
            yield from _documents(Row(place, row), name, fields, on_bad)
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(
            f"{where}:{rows.line_num + 1}: not CSV in UTF-8 ({error}): correct the line"
        ) from error
    finally:
        text.detach()


def read_pubmedqa(stream: BinaryIO, where: str) -> Iterator[Entry]:
    """The contexts of PubMedQA's questions (`ori_pqal.json`): abstracts without their conclusions.

    Neither the question nor the long answer is part of a document.

    Raises:
        InputError: the file is not JSON of this shape.
    """
    try:
        rows = json.load(stream)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON ({error}): a document a line is .jsonl") from error
    if not isinstance(rows, dict) or not all(
        isinstance(row, dict) and "CONTEXTS" in row for row in rows.values()
    ):
        raise InputError(
            f"{where}: not PubMedQA's JSON (PMID → QUESTION, CONTEXTS, …): write a document a line as .jsonl"
        )
    for pmid, row in rows.items():
        sections = _sections(row["CONTEXTS"], row.get("LABELS"))
        if sections:
            yield Document(
                key=f"pubmedqa:{pmid}",
                ident=pmid,
                source="PubMedQA",
                abstract=sections,
                pmid=pmid,
                year=_year(row.get("YEAR")),
                mesh=_listed(row.get("MESHES")),
            )


def _documents(row: Row, name: str, fields: Mapping[str, str], on_bad: OnBad) -> Iterator[Document]:
    try:
        yield _document(row, name, fields)
    except InputError as error:
        on_bad(error)


def _document(row: Row, name: str, fields: Mapping[str, str]) -> Document:
    """Raises InputError for a row without id or text."""
    values = _flattened(row.values)
    for field, column in fields.items():
        if column not in values:
            raise InputError(
                f"{row.where}: --fields {field}={column}: the row has no column '{column}': its columns are "
                f"{', '.join(map(str, list(values)[:12]))}"
            )

    def value(field: str) -> object:
        names = (fields[field],) if field in fields else COLUMNS[field]
        return next((values[name] for name in names if values.get(name) not in (None, "")), None)

    ident = _text(value("id"))
    if not ident:
        raise InputError(f"{row.where}: no id: give a column id, or name one with --fields id=COLUMN")
    sections = _sections(value("text"), value("labels"))
    title = _text(value("title"))
    if not sections and not title:
        raise InputError(f"{row.where}: no text: give a column text, or name one with --fields text=COLUMN")
    pmid, types = _text(value("pmid")), _listed(value("types"))
    return Document(
        key=f"{name}:{ident}",
        ident=ident,
        source=name,
        title=title,
        abstract=sections,
        pmid=pmid,
        pmcid=_text(value("pmcid")),
        doi=_text(value("doi")),
        journal=_text(value("journal")),
        year=_year(value("year")),
        types=types,
        mesh=_listed(value("mesh")),
        licence=_text(value("licence")),
        retracted=_text(value("retracted")).casefold() in _TRUE or is_retraction_type(types),
    )


def _flattened(values: Mapping[str, object]) -> dict[str, object]:
    """The values with those of `context` and `metadata` beside them: the Hub's PubMedQA and BEIR nest theirs."""
    flat = dict(values)
    for name in ("context", "metadata"):
        inner = values.get(name)
        if isinstance(inner, dict):
            del flat[name]
            flat = {**inner, **flat}
    return flat


def _sections(text: object, labels: object) -> tuple[Section, ...]:
    texts = [_text(part) for part in text] if isinstance(text, (list, tuple)) else [_text(text)]
    names = [_text(name) for name in labels] if isinstance(labels, (list, tuple)) else []
    if len(names) != len(texts):
        names = [""] * len(texts)
    return tuple(Section(label.upper(), part) for label, part in zip(names, texts, strict=True) if part)


def _listed(value: object) -> tuple[str, ...]:
    """A list of texts, or a text with ";" between its parts."""
    parts: Sequence[object] = value if isinstance(value, (list, tuple)) else _text(value).split(";")
    return tuple(dict.fromkeys(filter(None, map(_text, parts))))


def _text(value: object) -> str:
    """A cell as text, white space as single spaces; JSON's numbers without a fraction as whole ones."""
    if value is None or isinstance(value, (dict, list)):
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value).encode("utf-8", "replace").decode("utf-8")
    return " ".join(text.split())


def _year(value: object) -> int | None:
    found = _YEAR.search(_text(value))
    return int(found.group()) if found else None
