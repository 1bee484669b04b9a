"""BEIR's files: questions, and which documents answer them (https://github.com/beir-cellar/beir/wiki).

queries.jsonl   {"_id": "q1", "text": "Does aspirin relieve pain?"}
qrels.tsv       query-id	corpus-id	score
                q1	31715909	1
"""

import json
from collections.abc import Iterator
from pathlib import Path

from medqlora.errors import InputError


def read_queries(path: str) -> dict[str, str]:
    """Query's id → its text.

    Raises:
        InputError: the file is missing, or a line is no query.
    """
    queries: dict[str, str] = {}
    for number, line in _lines(path, "--queries"):
        try:
            row = json.loads(line)
            ident, text = str(row["_id" if "_id" in row else "id"]), str(row["text"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(
                f'{path}:{number}: no query ({error}): write lines like {{"_id": "q1", "text": "Does …?"}}'
            ) from error
        if ident in queries:
            raise InputError(f"{path}:{number}: the query {ident} stands twice: remove one")
        queries[ident] = text
    if not queries:
        raise InputError(f"--queries {path}: the file is empty")
    return queries


def read_qrels(path: str) -> dict[str, dict[str, int]]:
    """Query's id → document's id → grade; TREC's four columns are read as well as BEIR's three.

    Raises:
        InputError: the file is missing, a line is no judgement, or no document is relevant.
    """
    judgements: dict[str, dict[str, int]] = {}
    for number, line in _lines(path, "--qrels"):
        cells = line.split("\t") if "\t" in line else line.split()
        if number == 1 and cells[-1].strip().casefold() in ("score", "relevance", "label"):
            continue
        if len(cells) == 4:  # TREC: query, iteration, document, grade
            del cells[1]
        try:
            query, document, grade = (cell.strip() for cell in cells)
            judgements.setdefault(query, {})[document] = int(grade)
        except ValueError as error:
            raise InputError(
                f"{path}:{number}: no judgement ({error}): write query-id, corpus-id and score, with tabs between"
            ) from error
    if not any(grade > 0 for grades in judgements.values() for grade in grades.values()):
        raise InputError(f"--qrels {path}: no document is relevant for any query")
    return judgements


def _lines(path: str, option: str) -> Iterator[tuple[int, str]]:
    file = Path(path).expanduser()
    if not file.is_file():
        raise InputError(f"{option}: there is no file {path}: check the path")
    try:
        with file.open(encoding="utf-8-sig") as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield number, line.rstrip("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{option} {path}: not a text in UTF-8 ({error})") from error
