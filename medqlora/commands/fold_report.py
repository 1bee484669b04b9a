"""The end of a cross-validation: out-of-fold predictions, the calibration from them, and the report."""

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from medqlora.artifacts.curve import read_curves
from medqlora.artifacts.fold_group import REPORT, REPORT_PAGE, FoldGroup
from medqlora.artifacts.recalibration import recalibrate
from medqlora.commands.asking import asking, load_several
from medqlora.commands.lightning_cli import MedQLoRACLI
from medqlora.config.model import ModelOptions
from medqlora.config.words import CONFIG_OPTIONS, CommandLine
from medqlora.errors import InputError
from medqlora.evaluation.cross_validation import (
    FoldResult,
    compare_groups,
    cross_validation,
    prediction_of,
    prediction_row,
)
from medqlora.evaluation.report.cross_validation_page import cross_validation_table, render_cross_validation
from medqlora.evaluation.report.files import write_files
from medqlora.inference import calibrate
from medqlora.inference.several import SeveralAdapters
from medqlora.models.adapters import read_adapter
from medqlora.models.weight_files import ADAPTER_WEIGHTS
from medqlora.records import Prediction, Record
from medqlora.utils.console import say
from medqlora.utils.digests import file_digest, text_digest
from medqlora.utils.files import write_text
from medqlora.utils.versions import versions

#: in a line of out-of-fold predictions: the question's digest
_DIGEST = "question_sha256"


def report(group: FoldGroup, folds: Sequence[int], words: list[str], against: str | None) -> None:
    """Asks each fold's adapter its validation questions, calibrates the adapters on all of them, and reports.

    Args:
        group: the folder, with its folds trained.
        folds: in their order.
        words: the options of each run, without the fold.
        against: another group to compare with.

    Raises:
        InputError: the questions have no labels, or the other group has other questions or is not finished.
    """
    others = None if against is None else read_results(FoldGroup(Path(against).expanduser()), "--against")
    _ask(group, folds, words)
    results = read_results(group, "--ckpt_path")
    found = cross_validation(results)
    pooled = [one for result in results for one in result.predictions]
    calibration = calibrate(
        pooled, _number(words, "target_risk", ModelOptions().target_risk), "--model.target_risk"
    ).to_json()
    found["calibration"] = dict(calibration)
    if others is not None:
        found["compared"] = compare_groups(results, others, str(against))
    info = {
        "command": shlex.join(["medqlora", *sys.argv[1:]]),
        "group": str(group.path),
        "options": dict(group.record("--ckpt_path").options),
        "versions": versions(),
    }
    for fold in folds:
        recalibrate(
            group.run(fold).adapter,
            calibration,
            {"kind": "out-of-fold", "folds": list(folds), "n": len(pooled)},
        )
    curves = {f"fold {fold}": read_curves(group.run(fold).path) for fold in folds}
    page = render_cross_validation(found, curves, info)
    write_files(group.path, {REPORT_PAGE: page, REPORT: json.dumps(found, indent=2, allow_nan=False) + "\n"})
    say(f"\n{cross_validation_table(found)}")
    say(f"Group:   {group.path}")
    say(f"Report:  {group.path / REPORT_PAGE}")
    say(f"Next:    {shlex.join(['medqlora', 'test', *kept_for_test(words), '--ensemble', str(group.path)])}")
    say(f"         {shlex.join(['tensorboard', '--logdir', str(group.path)])}")


def kept_for_test(words: Sequence[str]) -> list[str]:
    """Of the words of a fit those that a test takes too: every configuration, and the options of data and model."""
    line = CommandLine.parse(words)
    kept = line.only(lambda one: one.name in CONFIG_OPTIONS or one.name.startswith(("data.", "model.")))
    return kept.words


def read_results(group: FoldGroup, option: str) -> list[FoldResult]:
    """The out-of-fold predictions of a group.

    Raises:
        InputError: a fold has none, or its file is damaged.
    """
    results = []
    for fold in group.record(option).folds:
        file = group.out_of_fold(fold)
        if (read := _read(file)) is None:
            raise InputError(
                f"{option} {group.path}: fold {fold} has no out-of-fold predictions that can be read ({file.name}): go "
                f"on with it by `medqlora fit --folds … --ckpt_path {group.path}`"
            )
        results.append(FoldResult(fold, str(group.run(fold).path), *read))
    return results


def _read(file: Path, adapter_sha256: str | None = None) -> tuple[list[Prediction], dict[str, str]] | None:
    """The predictions of a file, and id → digest of the question, where the file has it.

    None where the file is missing, damaged, or of another adapter than `adapter_sha256`.
    """
    try:
        head, *rows = (json.loads(line) for line in file.read_text(encoding="utf-8").splitlines())
        if adapter_sha256 not in (None, head["adapter_sha256"]) or head["n"] != len(rows):
            return None
        digests = {str(row["id"]): str(row[_DIGEST]) for row in rows if _DIGEST in row}
        return [prediction_of(row) for row in rows], digests
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None


def _ask(group: FoldGroup, folds: Sequence[int], words: list[str]) -> None:
    """Writes the out-of-fold predictions of the folds that lack them; the base model is loaded once."""
    digests = {fold: str(file_digest(group.run(fold).adapter / ADAPTER_WEIGHTS)["sha256"]) for fold in folds}
    missing = [fold for fold in folds if _read(group.out_of_fold(fold), digests[fold]) is None]
    if not missing:
        return
    say(f"\nAsking {len(missing)} adapters their own validation questions")
    built = {fold: _built(fold, words) for fold in missing}
    adapters = {fold: str(group.run(fold).adapter) for fold in missing}
    first = built[missing[0]]
    several = load_several(list(adapters.values()), first, words)
    for fold, each in built.items():
        _read_questions(each, several)
        _check_held_out(adapters[fold], fold, _dev(each))
    total = sum(len(each.datamodule.dev) for each in built.values())
    with asking(several, first, "Validation questions", total) as ask:
        for fold, each in built.items():
            records = _dev(each)
            found = ask(adapters[fold], records, {example.id: example for example in each.datamodule.dev})
            head = {"fold": fold, "n": len(found), "adapter_sha256": digests[fold]}
            texts = {record.id: text_digest(record.question) for record in records}
            rows = [{**prediction_row(one), _DIGEST: texts[one.id]} for one in found]
            lines = [json.dumps(row) for row in (head, *rows)]
            write_text(group.out_of_fold(fold), "\n".join(lines) + "\n")
            right = sum(one.decision == one.gold for one in found)
            say(f"Fold {fold}: {right} of {len(found)} right")


def _built(fold: int, words: list[str]) -> MedQLoRACLI:
    """The validation of a fold, with its questions not read yet."""
    from medqlora.commands.run import build

    return build(["validate", *words, f"--data.source.fold={fold}"], with_trainer=False)


def _read_questions(built: MedQLoRACLI, several: SeveralAdapters) -> None:
    """Reads a fold's validation questions.

    Raises:
        InputError: they can't be read, or have no labels.
    """
    data = built.datamodule
    data.images = several.predictor.images
    data.validation_samples = None  # a run may validate on a sample: here all questions are asked
    data.read(several.predictor.tokenizer, ("dev",), report=lambda line: None)
    if not data.dev or not all(example.labels for example in data.dev):
        raise InputError(
            "--folds: the validation questions need labels to choose from: free answers have none"
        )


def _dev(built: MedQLoRACLI) -> list[Record]:
    """A fold's validation questions."""
    data = built.datamodule
    return [data.records[example.id] for example in data.dev]


def _check_held_out(adapter: str, fold: int, records: Sequence[Record]) -> None:
    """Raises InputError for validation questions that the fold's adapter has trained on: its folds were others."""
    trained = read_adapter(adapter).get("train_ids")
    known = set(map(str, trained)) if isinstance(trained, list) else set()
    if both := [record.id for record in records if record.id in known]:
        raise InputError(
            f"--folds: {len(both)} of the {len(records)} validation questions of fold {fold} were trained on by "
            f"{adapter} (the first is {both[0]}): the data or their options have changed since: begin a new "
            "cross-validation"
        )


def _number(words: list[str], name: str, default: float) -> float:
    """A number under `--model.`."""
    value = CommandLine.parse(words).value(f"model.{name}")
    return default if value is None else float(str(value))
