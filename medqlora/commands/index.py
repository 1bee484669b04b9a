"""`medqlora index`: builds, extends, searches and measures an index of medical literature."""

import argparse
import json
import shutil
import textwrap
from collections.abc import Callable
from pathlib import Path

from medqlora.commands.arguments import Parser, run_action
from medqlora.commands.index_options import add_search_options, check_k, check_ranking, filters_of
from medqlora.commands.index_server import (
    describe_server,
    is_description,
    refuse_server,
    show_skipped,
    write_to_server,
)
from medqlora.commands.registry import Command
from medqlora.errors import InputError
from medqlora.utils.terminal import printable_line

COMMAND = Command(
    "index", "an index of medical literature: build, add, embed, search, info, eval, bench", rank=75
)

_HELP = """usage: medqlora index ACTION ...

Builds and searches an index of medical literature: one file, for `--data.retrieval.index`, `ask` and `verify`.
A .yaml file in its place describes an index on an OpenSearch server.

actions:
  build   a new index of PubMed XML, JATS, JSONL, CSV, PubMedQA, text, Markdown and PDF files
  add     more files, updates and deletions into an index
  embed   vectors of a sentence-embedding model beside an index
  search  the passages for a question
  info    what an index holds
  eval    recall, nDCG and MRR on questions with known answers (BEIR's files)
  bench   speed and memory at a given number of generated records; recall on PubMedQA's contexts

`medqlora index ACTION --help` explains an action's options.
"""


def run(command: str, words: list[str]) -> int:
    """Raises InputError for a wrong action or option, a file that can't be read, or a damaged index."""
    return run_action("index", _ACTIONS, _HELP, words)


# ---- build, add, embed -----------------------------------------------------------------------------------


def _build(words: list[str]) -> int:
    parser = Parser(
        "index build",
        "Builds an index. Run the same command again to go on with a killed build; where the vectors alone are missing "
        "it names the command that writes them.",
    )
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help="files and folders, also .gz")
    parser.add_argument(
        "--out",
        required=True,
        metavar="FILE",
        help="the index to write, as literature.mqi; or the description (.yaml) of one on a server",
    )
    _add_reading(parser)
    parser.add_argument(
        "--passage_words",
        type=int,
        default=300,
        metavar="N",
        help="most words of a passage; an abstract of this length is one (default: %(default)s)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an index that exists")
    _add_embedding(parser)
    options = parser.parse_args(words)
    out = Path(options.out).expanduser()
    if options.passage_words < 20:
        raise InputError(f"--passage_words is {options.passage_words}: it has to be at least 20")
    if is_description(out):
        return write_to_server(
            options, options.out, "--out", options.passage_words, overwrite=options.overwrite
        )
    if out.exists() and not options.overwrite:
        if options.embedding is not None:
            _refuse_without_vectors(options, out)
        raise InputError(
            f"--out {options.out}: exists: `medqlora index add` extends it, --overwrite replaces it"
        )
    return _written(options, out, options.passage_words, add=False)


def _refuse_without_vectors(options: argparse.Namespace, out: Path) -> None:
    """Raises InputError, with the command that goes on, for an index whose build ended before its vectors."""
    from medqlora.retrieval.vectors import vector_files

    if not all(file.is_file() for file in vector_files(out)):
        raise InputError(
            f"--out {options.out}: exists without its vectors, as a build leaves it that was killed: `medqlora index "
            f"embed {options.out} --embedding {options.embedding} --vectors {options.vectors}` writes them"
        )


def _add(words: list[str]) -> int:
    parser = Parser(
        "index add",
        "Adds files to an index. Documents of the same id are replaced, PubMed's deletions carried out.",
    )
    parser.add_argument(
        "index", metavar="INDEX", help="the index, or the description (.yaml) of one on a server"
    )
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help="files and folders, also .gz")
    _add_reading(parser)
    _add_embedding(parser)
    options = parser.parse_args(words)
    out = Path(options.index).expanduser()
    if not out.is_file():
        raise InputError(f"INDEX: there is no file {options.index}: build it with `medqlora index build`")
    if is_description(out):
        return write_to_server(options, options.index, "INDEX", None)
    return _written(options, out, 0, add=True)


def _written(options: argparse.Namespace, out: Path, words: int, *, add: bool) -> int:
    """Builds or extends the index at `out`, with its vectors, and says what it holds."""
    from medqlora.commands.progress_lines import ProgressLines
    from medqlora.retrieval.build import BuildRequest, build_index
    from medqlora.retrieval.reading import source_files
    from medqlora.retrieval.reading.files import parse_fields
    from medqlora.retrieval.vectors import vector_files

    _check_embedding(options, without=not (add and vector_files(out)[1].is_file()))
    request = BuildRequest(
        out,
        source_files(options.sources),
        parse_fields(options.fields),
        words,
        options.on_bad_record == "skip",
        add,
    )
    progress = ProgressLines()
    built = build_index(request, progress.update)
    if built.resumed_at:
        print(f"Resumed: {built.resumed_at:,} entries were indexed before", flush=True)
    show_skipped(built.skipped)
    changes = f"{built.added:,} added, {built.replaced:,} replaced, {built.deleted:,} deleted"
    older = f", {built.ignored:,} older versions ignored" if built.ignored else ""
    print(f"Documents: {built.documents:,} ({changes}{older}), {built.passages:,} passages", flush=True)
    if options.embedding is not None:
        _embedded(options, out)
    elif add:
        _renewed(options, out)
    print(f"Index:   {out} ({out.stat().st_size / 1e6:,.1f} MB)", flush=True)
    return 0


def _embed(words: list[str]) -> int:
    parser = Parser(
        "index embed", "Writes the vectors of an index's passages beside it, for ranking by meaning."
    )
    parser.add_argument(
        "index", metavar="INDEX", help="the index, or the description (.yaml) of one on a server"
    )
    _add_embedding(parser)
    options = parser.parse_args(words)
    out = Path(options.index).expanduser()
    if options.embedding is None:
        raise InputError("--embedding is missing: name a folder of a sentence-embedding model")
    if is_description(out):
        refuse_server("INDEX", options.index)
    from medqlora.retrieval.store import open_index

    open_index(out, "INDEX").close()
    _check_embedding(options, without=True)
    _embedded(options, out)
    return 0


def _check_embedding(options: argparse.Namespace, *, without: bool) -> None:
    """
    Args:
        options: the options of vectors.
        without: whether there are no vectors whose model `--embedding` may leave out.

    Raises:
        InputError: a model's folder can't be used, faiss is missing, or an option has no effect without a model.
    """
    from medqlora.retrieval.embedding import EmbeddingRecipe, check_folder

    if options.embedding is None:
        unused = {"query_embedding": options.query_embedding is not None}
        unused["vectors"] = without and options.vectors != "auto"
        for option in (name for name, given in unused.items() if given):
            raise InputError(
                f"--{option} {getattr(options, option)}: vectors need a model: give --embedding FOLDER too, "
                f"or leave --{option} out"
            )
    if options.vectors == "faiss":
        from medqlora.retrieval.approximate import check_faiss

        check_faiss("--vectors faiss")
    for option in ("embedding", "query_embedding"):
        if getattr(options, option) is not None:
            folder = Path(getattr(options, option)).expanduser()
            check_folder(folder, f"--{option}")
            EmbeddingRecipe.read(folder, f"--{option}")


def _embedded(options: argparse.Namespace, out: Path) -> None:
    from medqlora.commands.progress_lines import ProgressLines
    from medqlora.retrieval.vectors import build_vectors, vector_files

    query = None if options.query_embedding is None else Path(options.query_embedding).expanduser()
    made = build_vectors(
        out,
        Path(options.embedding).expanduser(),
        query,
        options.device,
        ProgressLines().update,
        options.vectors,
    )
    kept = f", {made.kept:,} as before" if made.kept else ""
    print(f"Vectors: {made.passages:,} of {made.size} numbers{kept}, {vector_files(out)[0]}", flush=True)
    if made.approximation is not None:
        lists, looked_through, recall = made.approximation
        print(
            f"Search:  faiss, {looked_through:,} of {lists:,} lists a question; it finds {recall:.1%} of the 10 best",
            flush=True,
        )


def _renewed(options: argparse.Namespace, out: Path) -> None:
    """Brings the vectors of an index that was added to up to date, where it has some."""
    from medqlora.retrieval.vectors import recorded_models, recorded_search, vector_files

    if not vector_files(out)[1].is_file():
        return
    models = recorded_models(out)
    if models is None:
        print(
            f"Warning: the vectors are of the index before, and their model has moved or changed: renew them with "
            f"`medqlora index embed {out} --embedding FOLDER`",
            flush=True,
        )
        return
    options.embedding, query = str(models[0]), models[1]
    if options.vectors == "auto":
        options.vectors = recorded_search(out)
    options.query_embedding = None if query is None else str(query)
    _embedded(options, out)


def _add_reading(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--fields", metavar="FIELD=COLUMN,…", help="columns of tables, as id=accession,text=body"
    )
    parser.add_argument(
        "--on_bad_record",
        choices=("error", "skip"),
        default="error",
        help="what to do with a row or file that can't be used (default: %(default)s)",
    )


def _add_embedding(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--embedding", metavar="FOLDER", help="a sentence-embedding model: also write vectors"
    )
    parser.add_argument(
        "--query_embedding", metavar="FOLDER", help="the model of the questions, where it is another"
    )
    parser.add_argument(
        "--vectors",
        choices=("auto", "exact", "faiss"),
        default="auto",
        help="how they are searched: exact, or an approximate index of faiss; auto: exact up to a million passages",
    )
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="the device of the models: auto, cpu, cuda",
    )


# ---- search, info ------------------------------------------------------------------------------------------


def _search(words: list[str]) -> int:
    parser = Parser("index search", "The passages for a question, the best first.")
    parser.add_argument(
        "index", metavar="INDEX", help="the index, or the description (.yaml) of one on a server"
    )
    parser.add_argument("query", metavar="QUESTION", help="the question, in quotes")
    parser.add_argument("--k", type=int, default=5, help="passages (default: %(default)s)")
    add_search_options(parser)
    parser.add_argument("--json", action="store_true", help="print a line of JSON for each passage")
    options = parser.parse_args(words)
    check_k(options.k)
    if not options.query.strip():
        raise InputError("QUESTION is empty: write it in quotes after the index")
    filters = filters_of(options)
    check_ranking(options)
    from medqlora.retrieval.opening import open_for_search

    index = open_for_search(options.index, "INDEX", options.ranking, options.reranker, options.device)
    hits = index.search(options.query, options.k, filters)
    if not hits and not options.json:
        print("No passage was found.", flush=True)
    width = min(100, shutil.get_terminal_size().columns)
    for rank, hit in enumerate(hits, 1):
        if options.json:
            values = {"rank": rank, "score": hit.score, "coverage": hit.coverage, **hit.passage.provenance()}
            print(json.dumps({**values, "text": hit.passage.text}, ensure_ascii=False), flush=True)
            continue
        from medqlora.retrieval.wording import reference

        print(f"[{rank}] {reference(hit.passage)}", flush=True)
        text = textwrap.shorten(hit.passage.text, 400, placeholder=" …")
        lines = textwrap.wrap(printable_line(text), max(width, 24) - 4, break_on_hyphens=False)
        print("\n".join(f"    {line}" for line in lines), flush=True)
    index.close()
    return 0


def _info(words: list[str]) -> int:
    parser = Parser("index info", "What an index holds.")
    parser.add_argument(
        "index", metavar="INDEX", help="the index, or the description (.yaml) of one on a server"
    )
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    options = parser.parse_args(words)
    from medqlora.retrieval.contents import describe

    contents = describe_server(options.index) if is_description(options.index) else describe(options.index)
    if options.json:
        print(json.dumps(contents, ensure_ascii=False), flush=True)
        return 0
    for name, value in contents.items():
        shown = (
            ", ".join(f"{key} {count:,}" for key, count in value.items())
            if isinstance(value, dict)
            else value
        )
        number = f"{shown:,}" if isinstance(shown, int) and name not in ("first_year", "last_year") else shown
        print(
            f"{name.replace('_', ' '):<18}{printable_line(str('-' if number is None else number))}",
            flush=True,
        )
    return 0


def _eval(words: list[str]) -> int:
    from medqlora.commands.index_scores import run_eval

    return run_eval(words)


def _bench(words: list[str]) -> int:
    from medqlora.commands.index_scores import run_bench

    return run_bench(words)


_ACTIONS: dict[str, Callable[[list[str]], int]] = {
    "build": _build,
    "add": _add,
    "embed": _embed,
    "search": _search,
    "info": _info,
    "eval": _eval,
    "bench": _bench,
}
