"""Options that the actions of `medqlora index` and `medqlora verify` share."""

import argparse
from typing import TYPE_CHECKING

from medqlora.config.retrieval import MOST, parse_years
from medqlora.errors import InputError

if TYPE_CHECKING:
    from medqlora.retrieval.search import Filters


def add_search_options(parser: argparse.ArgumentParser) -> None:
    """Adds the filters and the ranking."""
    parser.add_argument(
        "--mesh", action="append", default=[], metavar="HEADING", help="only documents with it; repeatable"
    )
    parser.add_argument(
        "--years", metavar="FROM-TO", help="only documents of these years, as 2010-2020, 2015- or -1999"
    )
    parser.add_argument("--retracted", action="store_true", help="also retracted articles, which are marked")
    parser.add_argument("--no_animal", action="store_true", help="no studies of animals alone")
    parser.add_argument(
        "--ranking",
        choices=("auto", "words", "vectors", "both"),
        default="auto",
        help="BM25 over words, similarity of vectors, or both fused; auto: both where there are vectors",
    )
    parser.add_argument("--reranker", metavar="FOLDER", help="a cross-encoder that orders the best 100 anew")
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="the device of the models: auto, cpu, cuda",
    )


def check_k(k: int) -> None:
    """Raises InputError for a number of passages that can't be."""
    if not 1 <= k <= MOST:
        raise InputError(f"--k is {k}: it has to be from 1 to {MOST}")


def filters_of(options: argparse.Namespace) -> "Filters":
    """The filters of the options.

    Raises:
        InputError: the years are none.
    """
    from medqlora.retrieval.search import Filters

    first, last = parse_years(options.years, "--years")
    return Filters(tuple(options.mesh), first, last, options.retracted, not options.no_animal)


def check_ranking(options: argparse.Namespace) -> None:
    """Raises InputError for a folder that holds no cross-encoder."""
    if options.reranker is not None:
        from pathlib import Path

        from medqlora.retrieval.embedding import check_folder

        check_folder(Path(options.reranker).expanduser(), "--reranker")
