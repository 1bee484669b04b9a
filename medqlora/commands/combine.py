"""`medqlora combine`: several adapters of one base model made into one, by PEFT's weighted combination."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medqlora.commands.arguments import Parser
from medqlora.commands.registry import Command
from medqlora.errors import InputError

if TYPE_CHECKING:
    from medqlora.artifacts.combined_adapter import Member
    from medqlora.inference.several import SeveralAdapters

COMMAND = Command("combine", "several adapters made into one, by weights", rank=66)

_EXAMPLES = """examples:
  medqlora combine lightning_logs/cv_0 --out combined          the folds of a cross-validation, equally weighted
  medqlora combine run_a run_b --weights 0.7 0.3 --out combined
  medqlora combine run_a run_b --method svd --rank 16 --out combined
  medqlora test --config configs/qlora.yaml --ensemble lightning_logs/cv_0 --against combined

methods (PEFT's `add_weighted_adapter`):
{methods}

A combined adapter needs the memory and the time of one. It is not the ensemble: `test --ensemble … --against` compares
both on the same questions.
"""
_METHODS = ("cat", "svd", "linear", "ties", "dare_linear", "dare_ties", "magnitude_prune")
_PRUNING = ("ties", "dare_linear", "dare_ties", "magnitude_prune")
_HELP = (
    ("cat", "the exact weighted sum of the updates; its rank is the sum of their ranks"),
    ("svd", "that sum, cut to --rank by a singular value decomposition"),
    ("linear", "weighted sums of A and of B apart: small, and a rough approximation"),
    ("ties, dare_linear, dare_ties, magnitude_prune", "prune to --density first"),
)


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    methods = "\n".join(f"  {name}: {text}" for name, text in _HELP)
    made = Parser(
        "combine",
        "Combines adapters of one base model into one adapter folder.",
        _EXAMPLES.format(methods=methods),
    )
    made.add_argument(
        "adapters", nargs="+", metavar="DIR", help="adapters, their runs, or a cross-validation's folder"
    )
    made.add_argument("--out", required=True, metavar="DIR", help="folder to write; new, or empty")
    made.add_argument(
        "--weights",
        nargs="+",
        type=float,
        metavar="X",
        help="one an adapter (default: equal, with the sum 1)",
    )
    made.add_argument("--method", choices=_METHODS, default="cat", help="see below (default: %(default)s)")
    made.add_argument(
        "--rank", type=int, metavar="N", help="with svd: rank of the result (default: the largest member's)"
    )
    made.add_argument(
        "--density", type=float, metavar="X", help="with a pruning method: share that is kept, above 0 to 1"
    )
    made.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of what DARE drops (default: %(default)s)"
    )
    made.add_argument(
        "--base", metavar="NAME|DIR", help="base model, where it differs from the adapters' record"
    )
    made.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="device of the base model"
    )
    return made


def run(command: str, words: list[str]) -> int:
    """Raises InputError for wrong options, adapters that don't belong together, or a folder that is not empty."""
    options = parser().parse_args(words)
    _check(options)
    from medqlora.artifacts.output import check_output, claimed
    from medqlora.commands.on_one_base import adapter_folders

    out = Path(options.out).expanduser()
    folders = adapter_folders(options.adapters, "DIR")
    if len(folders) < 2:
        raise InputError(f"DIR {folders[0]}: one adapter is nothing to combine: name two or more")
    weights = options.weights or [1 / len(folders)] * len(folders)
    if len(weights) != len(folders):
        raise InputError(f"--weights: {len(weights)} for {len(folders)} adapters: give one for each")
    check_output(out)
    with claimed(out):
        _combine(options, folders, weights, out)
    return 0


def _check(options: argparse.Namespace) -> None:
    if options.method in _PRUNING and options.density is None:
        raise InputError(f"--method {options.method}: it prunes: pass --density, as 0.5")
    if options.density is not None and options.method not in _PRUNING:
        raise InputError(
            f"--density {options.density}: --method {options.method} prunes nothing: leave it out"
        )
    if options.density is not None and not 0 < options.density <= 1:
        raise InputError(f"--density {options.density}: give a share above 0, at most 1")
    if options.rank is not None and (options.method != "svd" or options.rank < 1):
        raise InputError(f"--rank {options.rank}: it belongs to --method svd, and is at least 1")
    if any(not abs(weight) < 1e6 for weight in options.weights or ()):
        raise InputError(f"--weights {options.weights}: give finite numbers")


def _combine(
    options: argparse.Namespace, folders: Sequence[str], weights: Sequence[float], out: Path
) -> None:
    from medqlora.artifacts.combined_adapter import combined_record, read_members, write_combined
    from medqlora.inference.several import SeveralAdapters
    from medqlora.models.adapters.combination import combine

    members = read_members(folders, weights, "DIR")
    several = SeveralAdapters.load(folders, base=options.base, device=options.device, option="DIR")
    made = combine(
        several.predictor.model,
        several.names(folders),
        weights,
        options.method,
        rank=options.rank,
        density=options.density,
        seed=options.seed,
    )
    settings: dict[str, object] = {"method": options.method, "rank": made.rank}
    if options.density is not None:
        settings |= {"density": options.density, "seed": options.seed}
    calibration = _calibration(several, made.name, members)
    record = combined_record(members, made, settings, calibration)
    write_combined(out, members, made, record, several.predictor.tokenizer)
    for member in members:
        print(f"  {member.weight:g} × {member.folder}")
    print(f"Method {options.method}, rank {made.rank}")
    print(f"Largest difference of a layer's update from the weighted sum: {made.deviation:.2g} of its norm")
    if calibration is None:
        print(
            "Its confidence is not calibrated: every question that is known here was trained on by some member"
        )
    print(f"Adapter: {out}", flush=True)


def _calibration(
    several: "SeveralAdapters", name: str, members: "Sequence[Member]"
) -> Mapping[str, object] | None:
    """The calibration on the validation questions that no member trained on; None where there is none, or no data."""
    from medqlora.artifacts.combined_adapter import held_out_ids
    from medqlora.artifacts.evaluated_weights import trained_on
    from medqlora.artifacts.merge.questions import validation_questions
    from medqlora.inference import calibrate

    ids = held_out_ids(members)
    if not ids:
        return None
    try:
        questions = validation_questions({**members[0].record, "dev_ids": ids}, members[0].folder)
    except InputError as error:
        print(f"Note: {error}", flush=True)
        return None
    labelled = [record for record in questions if record.labels and record.answer in record.labels]
    trained = frozenset[str]().union(*(trained_on(member.folder, labelled) for member in members))
    labelled = [record for record in labelled if record.id not in trained]
    if not labelled:
        return None
    with several.asked(members[0].folder, name) as predictor:
        predictions = predictor.predict(labelled)
    return calibrate(predictions).to_json()
