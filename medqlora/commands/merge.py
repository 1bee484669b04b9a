"""`medqlora merge`: an adapter merged into its base model, verified on the adapter's validation questions."""

import argparse
from pathlib import Path

from medqlora.commands.arguments import Parser
from medqlora.commands.newest_run import adapter_or_newest, add_logs
from medqlora.commands.registry import Command
from medqlora.commands.verification_options import (
    add_verification,
    check_verification,
    questions_of,
)
from medqlora.errors import InputError
from medqlora.utils.cache import base_words
from medqlora.utils.progress import phase

COMMAND = Command("merge", "an adapter merged into its base model, and verified", rank=65)

_EXAMPLES = """examples:
  medqlora merge --out merged                                 the newest finished run's adapter
  medqlora merge --adapter lightning_logs/version_0 --out merged
  medqlora test --config configs/qlora.yaml --model.backend=medqlora.models.Transformers \
      --model.backend.base merged --model.backend.quantization none --model.adapter none

The update is added to the values that the adapter was trained on: the base model's, dequantized. The merged model then
answers the adapter's validation questions beside the live one; where an answer changes, the command fails and leaves
nothing. A killed merge goes on when the same command is run again.
"""


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    made = Parser(
        "merge", "Merges an adapter into its base model: one folder that transformers loads.", _EXAMPLES
    )
    made.add_argument(
        "--adapter",
        metavar="DIR",
        help="adapter folder, or the folder of its run (default: the newest finished run's)",
    )
    add_logs(made)
    made.add_argument("--out", required=True, metavar="DIR", help="folder to write; new, or empty")
    made.add_argument(
        "--base", metavar="NAME|DIR", help="base model, where it differs from the adapter's record"
    )
    made.add_argument("--onto", metavar="DIR", help="merge onto the 16-bit weights of this folder instead")
    made.add_argument(
        "--dtype",
        choices=("auto", "float16", "bfloat16", "float32"),
        default="auto",
        help="data type of the weights; auto is float16 unless bfloat16 keeps more (default: %(default)s)",
    )
    made.add_argument(
        "--quantize",
        choices=("nf4", "int8"),
        help="quantize the merged weights with bitsandbytes; the answers change by more",
    )
    add_verification(made)
    return made


def run(command: str, words: list[str]) -> int:
    """Raises InputError for wrong options, another base model's adapter, or a folder that is not empty."""
    options = parser().parse_args(words)
    options.adapter = adapter_or_newest(options.adapter, options.logs)
    check_verification(options)
    from medqlora.artifacts.output import claimed

    with claimed(Path(options.out).expanduser()):
        return _merge(options)


def _merge(options: argparse.Namespace) -> int:
    from medqlora.artifacts.merge.folder import REPORT_PAGE
    from medqlora.artifacts.merge.merging import MergeOptions
    from medqlora.artifacts.merge.run import Merge, MergeRequest, finish
    from medqlora.commands.progress_lines import ProgressLines
    from medqlora.evaluation.verification import limits
    from medqlora.inference.loading import pick_device

    out = Path(options.out).expanduser()
    request = MergeRequest(
        options.adapter,
        out,
        options.base,
        options.onto,
        MergeOptions(options.dtype, quantize=options.quantize),
        pick_device(options.device),
    )
    with phase("Reading the adapter and its base"):
        merge = Merge(request)
    print(f"Merging the adapter {merge.adapter} into {base_words(merge.live.name)}", flush=True)
    questions = questions_of(options, merge.record, merge.adapter)
    progress = ProgressLines()
    folder, merged = merge.write(progress.update)
    why = " (a weight is too large for float16)" if merged.overflowed else ""
    print(f"Weights: {merge.onto}, with {merged.changed} updates; {merged.dtype}{why}", flush=True)
    verification = None
    if options.verify == "true":
        bits = {"nf4": 4, "int8": 8}.get(options.quantize, 16)
        try:
            verification = merge.verify(folder, questions, limits(bits, options.tolerance), progress.update)
        except InputError:  # after a kill the finished shards stay: the same command goes on
            folder.discard()
            raise
        print("\n".join(verification.lines()), flush=True)
        if verification.faults:
            folder.discard()
            fix = "it without --quantize" if options.quantize else "--dtype float32"
            raise InputError(
                f"--out {options.out}: not written, the merged model differs: {'; '.join(verification.faults)}: try "
                f"{fix}, or accept it with --tolerance"
            )
    finish(merge, folder, merged, verification)
    print(f"Merged:  {out}\nReport:  {out / REPORT_PAGE}", flush=True)
    return 0
