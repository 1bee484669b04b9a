"""`medqlora index eval` and `medqlora index bench`."""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from medqlora.commands.arguments import Parser
from medqlora.commands.index_options import add_search_options, check_ranking, filters_of
from medqlora.errors import InputError

if TYPE_CHECKING:
    from medqlora.retrieval.measuring import Timed

_RANKINGS = ("words", "vectors", "both")
_EVAL = "Recall, nDCG and MRR of an index on questions with known answers; several rankings are compared in pairs."
_BENCH = (
    "Measures the index on this machine: speed, memory and the time of a question at a number of generated records;\n"
    "with --pubmedqa, how often a question finds its own abstract (without conclusions)."
)


def run_eval(words: list[str]) -> int:
    """Raises InputError for wrong options or files."""
    parser = Parser("index eval", _EVAL)
    parser.add_argument("index", metavar="INDEX", help="the index")
    parser.add_argument("--queries", required=True, metavar="FILE", help='JSONL with "_id" and "text"')
    parser.add_argument(
        "--qrels", required=True, metavar="FILE", help="query-id, corpus-id and score, with tabs"
    )
    parser.add_argument(
        "--compare",
        metavar="A,B",
        help="rankings to compare, of words, vectors, both; the first with the others",
    )
    add_search_options(parser)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    options = parser.parse_args(words)
    rankings = _rankings(options)
    filters_of(options)
    check_ranking(options)
    from medqlora.retrieval.ranking_files import read_qrels, read_queries

    queries, judgements = read_queries(options.queries), read_qrels(options.qrels)
    asked = {ident: text for ident, text in queries.items() if ident in judgements}
    if not asked:
        raise InputError(
            f"--qrels {options.qrels}: judges none of the queries of {options.queries}: check the ids"
        )
    timed = {name: _ranked(options, name, asked) for name in rankings}
    _print_scores(options, timed, {ident: judgements[ident] for ident in asked})
    return 0


def _rankings(options: argparse.Namespace) -> list[str]:
    if options.compare is None:
        return [options.ranking]
    names = [name.strip() for name in options.compare.split(",")]
    unknown = [name for name in names if name not in _RANKINGS]
    if unknown or len(set(names)) < max(2, len(names)):
        raise InputError(
            f"--compare {options.compare}: name two or more of {', '.join(_RANKINGS)}, each once"
        )
    return names


def _ranked(options: argparse.Namespace, name: str, asked: dict[str, str]) -> "Timed":
    from medqlora.commands.progress_lines import ProgressLines
    from medqlora.retrieval.measuring import rank_documents
    from medqlora.retrieval.opening import open_for_search

    index = open_for_search(options.index, "INDEX", name, options.reranker, options.device)  # type: ignore[arg-type]
    try:
        return rank_documents(index, asked, filters_of(options), progress=ProgressLines().update)
    finally:
        index.close()


def _print_scores(
    options: argparse.Namespace, timed: "dict[str, Timed]", judgements: dict[str, dict[str, int]]
) -> None:
    from medqlora.retrieval.ranking_scores import by_query, mean_with_interval, paired_p

    relevant = {one for grades in judgements.values() for one, grade in grades.items() if grade > 0}
    values = {name: by_query(one.rankings, judgements) for name, one in timed.items()}
    means = {
        name: {metric: mean_with_interval(each) for metric, each in of_name.items()}
        for name, of_name in values.items()
    }
    first = next(iter(values))
    tests = {
        name: {metric: paired_p(values[name][metric], values[first][metric]) for metric in of_name}
        for name, of_name in values.items()
        if name != first
    }
    if options.json:
        found = {
            name: {
                **{metric: one._asdict() for metric, one in of_name.items()},
                "ms_a_query": timed[name].millisecond(0.5),
                **({"p_against_" + first: tests[name]} if name in tests else {}),
            }
            for name, of_name in means.items()
        }
        print(json.dumps({"queries": len(judgements), "rankings": found}), flush=True)
        return
    for name, of_name in means.items():
        print(
            f"{name}: {len(next(iter(values[name].values()))):,} queries, {timed[name].millisecond(0.5):.1f} ms each"
        )
        for metric, one in of_name.items():
            p = f"  p {tests[name][metric]:.3f} against {first}" if name in tests else ""
            print(
                f"  {metric:<10}{one.mean:.3f}   95% interval {one.low:.3f} to {one.high:.3f}{p}", flush=True
            )
    found_any = {one for each in timed.values() for ranking in each.rankings.values() for one in ranking}
    if relevant.isdisjoint(found_any):
        print(
            "Warning: no judged document was found: do the judgements use the index's ids (`index search --json`)?",
            flush=True,
        )


def run_bench(words: list[str]) -> int:
    """Raises InputError for wrong options."""
    parser = Parser("index bench", _BENCH)
    parser.add_argument(
        "--records", type=int, default=200_000, help="generated records (default: %(default)s)"
    )
    parser.add_argument("--queries", type=int, default=200, help="questions (default: %(default)s)")
    parser.add_argument("--pubmedqa", metavar="FILE", help="measure on the contexts of ori_pqal.json instead")
    parser.add_argument(
        "--embedding", metavar="FOLDER", help="also with vectors of this model; with --pubmedqa"
    )
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="the model's device"
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    options = parser.parse_args(words)
    for name in ("records", "queries"):
        if getattr(options, name) < 1:
            raise InputError(f"--{name} is {getattr(options, name)}: it has to be at least 1")
    if options.embedding is not None and options.pubmedqa is None:
        raise InputError("--embedding: give --pubmedqa FILE too: generated records have no meaning to embed")
    with tempfile.TemporaryDirectory(prefix="medqlora-index-") as folder:
        figures = _pubmedqa(options, Path(folder)) if options.pubmedqa else _generated(options, Path(folder))
    if options.json:
        print(json.dumps(figures), flush=True)
        return 0
    for name, value in figures.items():
        print(f"{name.replace('_', ' '):<28}{value:>12,.3f}".rstrip("0").rstrip("."), flush=True)
    return 0


def _generated(options: argparse.Namespace, folder: Path) -> dict[str, float]:
    from medqlora.commands.progress_lines import ProgressLines
    from medqlora.retrieval.build import BuildRequest, build_index
    from medqlora.retrieval.generated import queries, write_records
    from medqlora.retrieval.measuring import rank_documents
    from medqlora.retrieval.ranking_scores import by_query
    from medqlora.retrieval.reading import source_files
    from medqlora.retrieval.search import Index
    from medqlora.utils.host_memory import peak_gib

    file, out = folder / "records.xml.gz", folder / "records.mqi"
    write_records(file, options.records)
    started, cpu = time.perf_counter(), time.process_time()
    built = build_index(BuildRequest(out, source_files([str(file)])), ProgressLines().update)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    asked = queries(options.queries, options.records)
    index = Index.open(out)
    timed = rank_documents(index, {one.pmid: one.text for one in asked}, depth=10)
    index.close()
    scores = by_query(timed.rankings, {one.pmid: {one.pmid: 1} for one in asked})
    return {
        "records": built.documents,
        "records_a_second": built.documents / seconds,
        "records_a_CPU_second": built.documents / cpu,
        "peak_memory_MiB": 1024 * peak_gib(),
        "file_MB": out.stat().st_size / 1e6,
        "query_p50_ms": timed.millisecond(0.5),
        "query_p95_ms": timed.millisecond(0.95),
        "R@1": float(scores["R@1"].mean()),
    }


def _pubmedqa(options: argparse.Namespace, folder: Path) -> dict[str, float]:
    from medqlora.commands.progress_lines import ProgressLines
    from medqlora.retrieval.build import BuildRequest, build_index
    from medqlora.retrieval.measuring import rank_documents
    from medqlora.retrieval.opening import open_for_search
    from medqlora.retrieval.ranking_scores import by_query
    from medqlora.retrieval.reading import source_files

    out = folder / "pubmedqa.mqi"
    build_index(BuildRequest(out, source_files([options.pubmedqa])))
    rows = json.loads(Path(options.pubmedqa).expanduser().read_text(encoding="utf-8"))
    asked = {pmid: str(row["QUESTION"]) for pmid, row in rows.items()}
    names = ["words"]
    if options.embedding is not None:
        from medqlora.retrieval.vectors import build_vectors

        names += ["vectors", "both"]
        folder_of_model = Path(options.embedding).expanduser()
        build_vectors(out, folder_of_model, None, options.device, ProgressLines().update)
    figures: dict[str, float] = {"questions": len(asked)}
    for name in names:
        index = open_for_search(out, "INDEX", name, None, options.device)  # type: ignore[arg-type]
        timed = rank_documents(index, asked, depth=10, progress=ProgressLines().update)
        index.close()
        scores = by_query(timed.rankings, {pmid: {pmid: 1} for pmid in asked})
        figures |= {f"{name}_{metric}": float(scores[metric].mean()) for metric in ("R@1", "R@10", "MRR@10")}
        figures[f"{name}_ms_a_query"] = 1000 * sum(timed.seconds) / len(timed.seconds)
    return figures
