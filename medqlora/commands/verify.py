"""`medqlora verify`: checks claims against an index of literature."""

import argparse
import json
import shutil
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from medqlora.commands.arguments import Parser
from medqlora.commands.index_options import add_search_options, check_k, check_ranking, filters_of
from medqlora.commands.registry import Command
from medqlora.errors import InputError
from medqlora.safety import NOTE
from medqlora.utils.terminal import printable_line

if TYPE_CHECKING:
    from medqlora.retrieval.verification import ClaimVerdict

COMMAND = Command(
    "verify", "claims checked against an index of literature", also=("check", "factcheck"), rank=78
)

_EXAMPLES = """examples:
  medqlora verify "Aspirin prevents stroke in women." --index literature.mqi
  medqlora verify answer.txt --index literature.mqi --adapter lightning_logs/version_0/adapter --json

The adapter itself is the verifier: it answers, from each retrieved passage, whether the claim is true. Passages that
hold too little of the claim's words, and retracted articles, are listed and decide nothing. Not medical advice.
"""
_MOST = 1 << 20


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    made = Parser(
        "verify", "Splits a text into claims, and says of each whether the literature supports it.", _EXAMPLES
    )
    made.add_argument("claim", metavar="CLAIM|FILE", help="the claim in quotes, or a text file")
    made.add_argument("--index", required=True, metavar="FILE", help="an index of `medqlora index build`")
    made.add_argument("--k", type=int, default=5, help="passages for a claim (default: %(default)s)")
    made.add_argument(
        "--adapter", metavar="DIR", help="the adapter, or a base model (default: the newest run's)"
    )
    made.add_argument(
        "--logs",
        metavar="DIR",
        default="lightning_logs",
        help="the folder of the runs (default: %(default)s)",
    )
    made.add_argument("--base", help="the base model, where it differs from the adapter's record")
    add_search_options(made)
    made.add_argument("--json", action="store_true", help="print a line of JSON for each claim")
    return made


def run(command: str, words: list[str]) -> int:
    """Raises InputError for wrong options, a missing index or adapter, or a text without a claim."""
    options = parser().parse_args(words)
    check_k(options.k)
    filters = filters_of(options)
    check_ranking(options)
    from medqlora.retrieval.claims import split_claims
    from medqlora.retrieval.opening import check_index

    text = text_of(options.claim)
    if not split_claims(text):
        raise InputError("CLAIM holds no sentence of three words or more: write what is to be checked")
    check_index(options.index, "--index")
    folder = _adapter(options)
    from medqlora.inference.predictor import Predictor
    from medqlora.retrieval.label_scores import LabelScorer
    from medqlora.retrieval.opening import open_for_search
    from medqlora.retrieval.retriever import Retriever
    from medqlora.retrieval.verification import Verifier

    if not options.json:
        print(f"Adapter: {folder}", flush=True)
    predictor = Predictor.load(
        folder, base=options.base, device=options.device, generate=False, option="--adapter"
    )
    for line in predictor.remarks:
        print(line, file=sys.stderr if options.json else sys.stdout, flush=True)
    warning = None if predictor.scope is None else predictor.scope.warning
    index = open_for_search(options.index, "--index", options.ranking, options.reranker, options.device)
    retriever = Retriever(index, k=options.k, filters=filters)
    verdicts = Verifier(LabelScorer(predictor), retriever).verify(text)
    for verdict in verdicts:
        if options.json:
            calibrated = predictor.calibration is not None
            plain = {**verdict.to_json(), "calibrated": calibrated, "warning": warning, "note": NOTE}
            print(json.dumps(plain, ensure_ascii=False), flush=True)
        else:
            print(f"\n{shown(verdict, min(100, shutil.get_terminal_size().columns))}", flush=True)
    if not options.json:
        how = "" if predictor.calibration else " Not calibrated: no calibration was saved with the adapter."
        print("\n" + "\n\n".join(filter(None, [summary(verdicts) + how, warning, NOTE])), flush=True)
    index.close()
    return 0


def shown(verdict: "ClaimVerdict", width: int) -> str:
    """A verdict with its passages, for the terminal."""
    from medqlora.retrieval.wording import reference

    width = max(width, 24)
    conflict = "; the passages conflict" if verdict.conflicting else ""
    head = f"{verdict.verdict.upper()} ({verdict.confidence:.0%}{conflict}): {printable_line(verdict.claim)}"
    lines = textwrap.wrap(head, width, break_on_hyphens=False)
    for number, one in enumerate(verdict.passages, 1):
        aside = "" if one.decides else ", decides nothing"
        share = one.probabilities[one.verdict]
        line = f"[{number}] {one.verdict} ({share:.0%}{aside}): {reference(one.hit.passage)}"
        lines += textwrap.wrap(
            line, width, initial_indent="  ", subsequent_indent="      ", break_on_hyphens=False
        )
    if not verdict.passages:
        lines.append("  No passage was found.")
    return "\n".join(lines)


def summary(verdicts: "list[ClaimVerdict]") -> str:
    """How many claims have each verdict."""
    counts = {
        name: sum(one.verdict == name for one in verdicts)
        for name in ("supported", "contradicted", "not enough")
    }
    listed = ", ".join(f"{count} {name}" for name, count in counts.items())
    return f"{len(verdicts)} claim{'s' * (len(verdicts) != 1)}: {listed}."


def text_of(given: str) -> str:
    """The content of the file of that name, or else the value itself.

    Raises:
        InputError: the file is empty or no text in UTF-8; a name of a file that is not there; or nothing is given.
    """
    try:
        path = Path(given).expanduser()
        is_file = path.is_file()
    except (OSError, ValueError):  # too long for a name: it is a claim
        is_file = False
    if not is_file:
        if not given.strip() or (" " not in given.strip() and Path(given[:200]).suffix in (".txt", ".md")):
            raise InputError(
                f"CLAIM {given[:80]!r}: there is no such file: give a text file, or the claim in quotes"
            )
        if any("\ud800" <= letter <= "\udfff" for letter in given):
            raise InputError("CLAIM is not a text in UTF-8: write it as one")
        return given
    try:
        if path.stat().st_size > _MOST:
            raise InputError(f"CLAIM {given}: more than 1 MiB: split the file")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"CLAIM {given}: not a text in UTF-8 ({error}): save it as one") from error
    if not text.strip():
        raise InputError(f"CLAIM {given}: the file is empty: give one with text")
    return text


def _adapter(options: argparse.Namespace) -> str:
    """The adapter's folder: the named one, or that of the newest finished run."""
    if options.adapter is not None:
        return str(options.adapter)
    from medqlora.artifacts.runs import newest_adapter

    newest = newest_adapter(Path(options.logs))
    if newest is None:
        raise InputError(
            f"--adapter: {options.logs} holds no finished run: train one with `medqlora fit`, or name a folder"
        )
    return str(newest)
