"""Readers of local files, each with a small valid file, for tests that corrupt these files."""

import bz2
import csv
import gzip
import io
import json
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import zstandard

from medqlora.data import (
    BioASQ,
    JSONLines,
    MedicalMMLU,
    MedMCQA,
    MedQA,
    Mirage,
    PubMedQA,
    official_folds,
    official_test_ids,
    read_questions,
)
from medqlora.records import Record


class Case(NamedTuple):
    """A reader and its file.

    Attributes:
        file: the file's name.
        good: the bytes of the valid file.
        read: reads the records of a path.
        count: the number of records in the valid file.
    """

    file: str
    good: bytes
    read: Callable[[Path], list[Record]]
    count: int


def _flat(source: Any) -> list[Record]:
    return [record for part in source.read() for record in part]


def _lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _table(rows: list[dict[str, Any]], separator: str = ",") -> bytes:
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, list(rows[0]), delimiter=separator, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue().encode()


def _columnar(rows: list[dict[str, Any]], kind: str) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet

    table, sink = pa.Table.from_pylist(rows), pa.BufferOutputStream()
    if kind == "parquet":
        pyarrow.parquet.write_table(table, sink)
    else:
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    return bytes(sink.getvalue())


def _zip(data: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo("own.csv"), data)
    return stream.getvalue()


def _workbook(rows: list[dict[str, Any]]) -> bytes:
    import openpyxl

    book, stream = openpyxl.Workbook(), io.BytesIO()
    for row in (list(rows[0]), *(list(row.values()) for row in rows)):
        book.active.append(row)
    book.save(stream)
    return stream.getvalue()


_ANSWERS = ("yes", "no", "maybe")
_OWN = [
    {
        "id": f"r{n}",
        "question": f"Is aspirin of use in group {n}, at 5 µg?",
        "contexts": [f"METHODS {n}.", "RESULTS: p < 0.05."],
        "answer": _ANSWERS[n % 3],
        "long_answer": f"Because of {n}.",
        "topics": ["Cardiology"],
    }
    for n in range(4)
]
_FLAT = [{"id": row["id"], "question": row["question"], "answer": row["answer"]} for row in _OWN]
_CHOICE = [
    {"question": f"Which is it, {n}?", "options": {"A": "Aspirin", "B": "Atenolol"}, "answer": "AB"[n % 2]}
    for n in range(4)
]
_PMIDS = [pmid for ids in (official_test_ids(), *official_folds()[:2]) for pmid in ids[:2]]
_GITHUB = {
    pmid: {
        "QUESTION": f"Does it help, {pmid}?",
        "CONTEXTS": ["We asked.", "They did."],
        "LABELS": ["METHODS", "RESULTS"],
        "MESHES": ["Adult"],
        "YEAR": None,
        "reasoning_required_pred": "yes",
        "reasoning_free_pred": "no",
        "final_decision": _ANSWERS[n % 3],
        "LONG_ANSWER": "It did.",
    }
    for n, pmid in enumerate(_PMIDS)
}
_HUB = [
    {
        "pubid": int(pmid),
        "question": row["QUESTION"],
        "context": {
            "contexts": row["CONTEXTS"],
            "labels": row["LABELS"],
            "meshes": row["MESHES"],
            "reasoning_required_pred": ["y", "e", "s"],
            "reasoning_free_pred": ["n", "o"],
        },
        "long_answer": row["LONG_ANSWER"],
        "final_decision": row["final_decision"],
    }
    for pmid, row in _GITHUB.items()
]
_MEDQA = [
    {
        "question": f"A man of {n} presents. What next?",
        "answer": f"Wait {n}",
        "options": {"A": f"Wait {n}", "B": "Operate", "C": "Scan", "D": "Refer"},
        "meta_info": "step1",
        "answer_idx": "A",
    }
    for n in range(3)
]
_MEDQA_HUB = [
    {
        "id": f"test-{n}",
        "sent1": f"Why {n}?",
        "sent2": "",
        **{f"ending{k}": f"e{k}" for k in range(4)},
        "label": n,
    }
    for n in range(3)
]
_MEDMCQA = [
    {
        "id": f"m{n}",
        "question": f"Which nerve, {n}?",
        "opa": "Median",
        "opb": "Ulnar",
        "opc": "Radial",
        "opd": "Axillary",
        "cop": n,
        "choice_type": "single",
        "exp": "It is.",
        "subject_name": "Anatomy",
        "topic_name": None,
    }
    for n in range(3)
]
_BIOASQ = {
    "questions": [
        {
            "id": f"b{n}",
            "type": "yesno",
            "body": f"Is drug {n} effective?",
            "documents": ["http://www.ncbi.nlm.nih.gov/pubmed/1"],
            "snippets": [{"text": "It was.", "document": "http://www.ncbi.nlm.nih.gov/pubmed/1"}],
            "exact_answer": "yes",
            "ideal_answer": ["Yes. It is."],
        }
        for n in range(3)
    ]
}
_MIRAGE = {
    "bioasq": {
        f"q{n}": {"question": f"Is it, {n}?", "options": {"A": "yes", "B": "no"}, "answer": "A"}
        for n in range(3)
    }
}
_MMLU = [
    {"question": f"Which bone, {n}?", "subject": "anatomy", "choices": ["a", "b", "c", "d"], "answer": n}
    for n in range(3)
]
_MMLU_CSV = b"".join(f'"Which bone, {n}?",a,"b, too",c,d,A\n'.encode() for n in range(3))


def _own(path: Path) -> list[Record]:
    return _flat(JSONLines(str(path), dev_fraction=0))


def _pubmedqa(path: Path) -> list[Record]:
    return _flat(PubMedQA(str(path), allow_partial=True))


def _mmlu(path: Path) -> list[Record]:
    return _flat(MedicalMMLU(str(path), allow_partial=True))


def _medqa(path: Path) -> list[Record]:
    return _flat(MedQA(str(path), allow_partial=True))


CASES = {
    "own.jsonl": Case("own.jsonl", _lines(_OWN), _own, 4),
    "own.json": Case("own.json", json.dumps(_OWN, indent=1).encode(), _own, 4),
    "own.csv": Case("own.csv", _table(_FLAT), _own, 4),
    "own.tsv": Case("own.tsv", _table(_FLAT, "\t"), _own, 4),
    "own.jsonl.gz": Case("own.jsonl.gz", gzip.compress(_lines(_OWN), mtime=0), _own, 4),
    "own.csv.bz2": Case("own.csv.bz2", bz2.compress(_table(_FLAT)), _own, 4),
    "own.xz": Case("own.xz", lzma.compress(_table(_FLAT)), _own, 4),
    "own.zst": Case("own.zst", zstandard.compress(_lines(_OWN)), _own, 4),
    "own.zip": Case("own.zip", _zip(_table(_FLAT, ";")), _own, 4),
    "own.xlsx": Case("own.xlsx", _workbook(_FLAT), _own, 4),
    "own utf-16": Case("own.txt", _table(_FLAT, "\t").decode().encode("utf-16"), _own, 4),
    "own cp1252": Case("own_ansi.csv", _table(_FLAT, ";").decode().encode("cp1252"), _own, 4),
    "own columns": Case(
        "columns.json",
        json.dumps({k: {str(n): row[k] for n, row in enumerate(_FLAT)} for k in _FLAT[0]}).encode(),
        _own,
        4,
    ),
    "own parts": Case("parts.json", json.dumps({"train": _OWN, "test": []}, indent=1).encode(), _own, 4),
    "own pretty": Case(
        "pretty.jsonl", b"\n".join(json.dumps(row, indent=1).encode() for row in _OWN), _own, 4
    ),
    "own.parquet": Case("own.parquet", _columnar(_OWN, "parquet"), _own, 4),
    "own.arrow": Case("own.arrow", _columnar(_OWN, "arrow"), _own, 4),
    "choice": Case("choice.jsonl", _lines(_CHOICE), _own, 4),
    "questions": Case(
        "asked.jsonl",
        _lines(_OWN),
        lambda path: read_questions(str(path), "--data.questions", _ANSWERS),
        4,
    ),
    "pubmedqa github": Case("ori_pqal.json", json.dumps(_GITHUB, indent=1).encode(), _pubmedqa, 6),
    "pubmedqa hub": Case("pqal.jsonl", _lines(_HUB), _pubmedqa, 6),
    "medqa": Case("medqa.jsonl", _lines(_MEDQA), _medqa, 3),
    "medqa hub": Case("medqa_hub.jsonl", _lines(_MEDQA_HUB), _medqa, 3),
    "medmcqa": Case(
        "dev.json", _lines(_MEDMCQA), lambda path: _flat(MedMCQA(str(path), allow_partial=True)), 3
    ),
    "bioasq": Case(
        "12B1_golden.json", json.dumps(_BIOASQ).encode(), lambda path: _flat(BioASQ(str(path))), 3
    ),
    "mirage": Case(
        "benchmark.json",
        json.dumps(_MIRAGE, indent=1).encode(),
        lambda path: _flat(Mirage("bioasq", str(path), allow_partial=True)),
        3,
    ),
    "mmlu hub": Case("mmlu.jsonl", _lines(_MMLU), _mmlu, 3),
    "mmlu authors": Case("anatomy_test.csv", _MMLU_CSV, lambda path: _mmlu(path.parent), 3),
}

#: cases with a text file that may be corrupted at any position
TEXT = {
    name: case
    for name, case in CASES.items()
    if case.file.endswith((".jsonl", ".json", ".csv", ".tsv"))
    and name
    not in ("own cp1252", "own columns", "own parts", "own pretty")  # other tests of these look for lines
}


def check_message(message: str) -> None:
    """Checks that an error message is one printable line of readable length."""
    assert message.isprintable(), repr(message)
    assert len(message) < 2_000, f"{len(message)} characters"
    assert ": " in message
