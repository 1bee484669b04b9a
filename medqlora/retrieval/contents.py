"""What an index holds, as plain values."""

import json
from contextlib import closing
from pathlib import Path

from medqlora.errors import InputError
from medqlora.retrieval.store import open_index, read_meta
from medqlora.retrieval.vectors import vector_files
from medqlora.utils.types import Json


def describe(path: str | Path) -> dict[str, Json]:
    """Numbers of documents by source, years, marks, and the vectors beside it.

    Raises:
        InputError: there is no such index.
    """
    file = Path(path).expanduser()
    with closing(open_index(file, "INDEX")) as index:

        def number(query: str) -> int | None:
            found = index.execute(query).fetchone()[0]
            return None if found is None else int(found)

        sources = index.execute("SELECT source, count(*) FROM documents GROUP BY source ORDER BY source")
        notes = vector_files(file)[1]
        try:
            known = json.loads(notes.read_text(encoding="utf-8")) if notes.is_file() else {}
        except ValueError as error:
            raise InputError(
                f"{notes} is damaged ({error}): write it again with `medqlora index embed`"
            ) from error
        meta = read_meta(index)
        fresh = known.get("content") == meta["content"]
        return {
            "documents": number("SELECT count(*) FROM documents"),
            "passages": number("SELECT count(*) FROM passages"),
            "sources": {str(source): int(count) for source, count in sources},
            "first_year": number("SELECT min(year) FROM documents"),
            "last_year": number("SELECT max(year) FROM documents"),
            "mesh_headings": number("SELECT count(DISTINCT heading) FROM headings"),
            "retracted": number("SELECT count(*) FROM documents WHERE retracted"),
            "animal_studies": number("SELECT count(*) FROM documents WHERE animal"),
            "without_licence": number("SELECT count(*) FROM documents WHERE licence = ''"),
            "passage_words": int(meta["words"]),
            "content_sha256": meta["content"],
            "vectors": f"{known['embedding']} ({'current' if fresh else 'outdated'})" if known else None,
            "bytes": file.stat().st_size,
        }
