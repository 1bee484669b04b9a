"""Writes sources to an index on a server, in batches."""

from collections.abc import Sequence

from medqlora.errors import InputError
from medqlora.retrieval.build import BATCH, Progress
from medqlora.retrieval.documents import Entry
from medqlora.retrieval.reading import Fields, SourceFile, read_entries
from medqlora.retrieval.searchable import IndexServer, Written


def write_sources(
    server: IndexServer, files: Sequence[SourceFile], fields: Fields, *, skip_bad: bool, progress: Progress
) -> tuple[Written, list[str]]:
    """What was written, and the messages on rows and files that were left out.

    Args:
        server: created or opened.
        files, fields, skip_bad: as of `BuildRequest`.
        progress: see `Progress`.

    Raises:
        InputError: a source can't be read, or the server refuses. What was written so far stays.
    """
    skipped: list[str] = []

    def on_bad(error: InputError) -> None:
        if not skip_bad:
            raise error
        skipped.append(str(error))

    total, before = sum(one.size for one in files) or 1, 0
    written = Written()
    batch: list[tuple[Entry, str]] = []

    def flush() -> None:
        nonlocal written
        done = server.write(batch)
        written = Written(*(one + other for one, other in zip(written, done, strict=True)))
        batch.clear()

    for file in files:

        def position(read: int, before: int = before) -> None:
            progress("writing", min(before + read, total - 1), total)

        found = len(skipped)
        empty = True
        try:
            for entry in read_entries(file, fields, on_bad, position):
                empty = False
                batch.append((entry, file.name))
                if len(batch) >= BATCH:
                    flush()
        except InputError as error:
            on_bad(error)
        if empty and len(skipped) == found and not skip_bad:
            raise InputError(f"{file.path}: holds no document: check the file")
        before += file.size
    flush()
    server.finish()
    progress("writing", total, total)
    return written, skipped
