"""`medqlora index` with an index on a server, which a YAML file describes."""

import argparse
from pathlib import Path
from typing import NoReturn

from medqlora.errors import InputError
from medqlora.utils.types import Json


def is_description(path: str | Path) -> bool:
    """Whether a path names a description of an index on a server."""
    return Path(path).suffix.casefold() in (".yaml", ".yml")


def refuse_server(option: str, path: str) -> NoReturn:
    """Raises InputError: the vectors of an index on a server are its description's."""
    raise InputError(
        f"{option}: {path} describes an index on a server: write `embedding` into it, and build it anew"
    )


def write_to_server(
    options: argparse.Namespace, path: str, option: str, words: int | None, *, overwrite: bool = False
) -> int:
    """Builds the index that a description names, or adds to it, and says what was written.

    Args:
        options: with sources, fields, on_bad_record and the embedding's.
        path: the description.
        option: what named it.
        words: most words of a passage of a new index; None adds to the one that is there.
        overwrite: replace a complete one.

    Raises:
        InputError: the description or a source is wrong, or the server refuses.
    """
    from medqlora.commands.progress_lines import ProgressLines
    from medqlora.retrieval.reading import source_files
    from medqlora.retrieval.reading.files import parse_fields
    from medqlora.retrieval.servers.description import described
    from medqlora.retrieval.servers.writing import write_sources

    for name in ("embedding", "query_embedding"):
        if getattr(options, name) is not None:
            refuse_server(f"--{name}", path)
    if options.vectors != "auto":
        raise InputError(
            f"--vectors {options.vectors}: {path} describes an index on a server, which searches its own way"
        )
    fields, files = parse_fields(options.fields), source_files(options.sources)
    server = described(path, option)
    server.select("auto", None, options.device)
    try:
        if words is None:
            server.open(option)
        else:
            server.create(words, option, overwrite=overwrite)
        written, skipped = write_sources(
            server, files, fields, skip_bad=options.on_bad_record == "skip", progress=ProgressLines().update
        )
        described_now = server.describe()
    finally:
        server.close()
    show_skipped(skipped)
    older = f", {written.ignored:,} older versions ignored" if written.ignored else ""
    changes = f"{written.added:,} added, {written.replaced:,} replaced, {written.deleted:,} deleted{older}"
    print(f"Documents: {changes}; {described_now['passages']:,} passages in all", flush=True)
    print(f"Index:   {path}", flush=True)
    return 0


def show_skipped(skipped: list[str]) -> None:
    """Prints the first rows and files that were left out."""
    from medqlora.utils.terminal import printable_line

    for line in skipped[:5]:
        print(f"Left out: {printable_line(line)}", flush=True)
    if len(skipped) > 5:
        print(f"Left out: {len(skipped) - 5:,} more", flush=True)


def describe_server(path: str) -> dict[str, Json]:
    """What the index of a description holds. Raises InputError."""
    from medqlora.retrieval.servers.description import described

    server = described(path, "INDEX")
    try:
        server.open("INDEX")
        return server.describe()
    finally:
        server.close()
