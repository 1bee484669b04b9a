"""`medqlora ask --index`: answers from retrieved passages, with their sources; `--verify` checks the rationale."""

import argparse
import json
import shutil
import textwrap
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from medqlora.commands.index_options import check_k
from medqlora.errors import InputError
from medqlora.inference import Answer

if TYPE_CHECKING:
    from medqlora.inference.predictor import Predictor
    from medqlora.retrieval.citations import CitedAnswer
    from medqlora.retrieval.retriever import Retriever


def add_index_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of answers from an index."""
    parser.add_argument(
        "--index",
        metavar="FILE",
        help="answer from passages of this index (`medqlora index build`), with sources",
    )
    parser.add_argument("--k", type=int, default=3, help="passages for an answer (default: %(default)s)")
    parser.add_argument(
        "--verify", action="store_true", help="check the rationale's claims against the answer's own sources"
    )


def check_index_options(options: argparse.Namespace) -> None:
    """Raises InputError for options that no model makes right, or an index that can't be opened."""
    if options.verify and options.index is None:
        raise InputError("--verify: it checks against the sources of --index: name an index")
    check_k(options.k)
    if options.index is not None:
        from medqlora.retrieval.opening import check_index

        check_index(options.index, "--index")


def answer_from_index(
    predictor: "Predictor", question: str, context: str | None, options: argparse.Namespace
) -> Answer:
    """Answers a question from retrieved passages, and prints the answer with its sources.

    Raises:
        InputError: the question can't be answered, or with --verify the adapter can't judge claims.
    """
    from medqlora.inference.predictor import one_question
    from medqlora.retrieval.citations import answer_with_sources

    record = one_question(question, context, options.option, predictor.labels)
    retriever = _retriever(str(options.index), options.k, _numbered(options))
    cited = answer_with_sources(predictor, record, retriever, options.note)
    if options.verify and cited.answer.reply is None:
        cited = _verified(predictor, cited)
    if options.json:
        print(json.dumps(cited.to_json(), ensure_ascii=False, allow_nan=False), flush=True)
    else:
        print(shown(cited, min(100, shutil.get_terminal_size().columns)), flush=True)
    return cited.answer


def shown(cited: "CitedAnswer", width: int) -> str:
    """The answer, its sources, its claims where verified, and last the note."""
    answer, width = cited.answer, max(width, 24)
    if answer.reply is not None:
        return answer.shown(width)
    wrapped = [textwrap.wrap(line, width, break_on_hyphens=False) or [""] for line in answer.note.split("\n")]
    note = "\n".join(line for lines in wrapped for line in lines)
    parts = [answer.shown(width).removesuffix(f"\n\n{note}")]
    if cited.removed:
        count = len(cited.removed)
        parts.append(f"{count} source{'s' * (count > 1)} that the text named and was not given: taken out.")
    lines = ["Sources:"]
    for line in cited.source_lines():
        lines += textwrap.wrap(line, width, subsequent_indent="    ", break_on_hyphens=False)
    parts.append("\n".join(lines))
    if cited.claims is not None:
        parts.append(_claims(cited, width))
    return "\n\n".join([*parts, note])


def _claims(cited: "CitedAnswer", width: int) -> str:
    from medqlora.utils.terminal import printable_line

    claims = cited.claims or ()
    lines = ["Claims of the text against these sources:"] if claims else ["The text makes no claim to check."]
    for one in claims:
        line = f"- {one['verdict']}: {one['claim']}"
        lines += textwrap.wrap(printable_line(line), width, subsequent_indent="  ", break_on_hyphens=False)
    if any(one["verdict"] == "contradicted" for one in claims):
        lines.append("WARNING: the answer's own sources contradict a part of it.")
    return "\n".join(lines)


def _verified(predictor: "Predictor", cited: "CitedAnswer") -> "CitedAnswer":
    from medqlora.retrieval.label_scores import LabelScorer
    from medqlora.retrieval.verification import Verifier

    verifier = Verifier(LabelScorer(predictor))
    verdicts = verifier.verify_against(cited.answer.rationale, cited.hits)
    return replace(cited, claims=tuple(verdict.to_json() for verdict in verdicts))


@cache
def _retriever(path: str, k: int, numbered: bool) -> "Retriever":
    """One for all questions of a process."""
    from medqlora.retrieval.opening import open_for_search
    from medqlora.retrieval.retriever import Retriever

    return Retriever(open_for_search(path, "--index"), k=k, keep_contexts=True, numbered=numbered)


def _numbered(options: argparse.Namespace) -> bool:
    """Whether the adapter was trained with numbered passages."""
    from medqlora.artifacts.runs import newest_adapter
    from medqlora.retrieval.opening import trained_with_numbers

    named = options.adapter or newest_adapter(Path(options.logs))
    return trained_with_numbers(None if named is None else str(named))
