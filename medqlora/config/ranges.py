"""Checks of values that have the right type: ranges, and files that have to exist."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from medqlora.config import trainer
from medqlora.config.schema import GROUPS
from medqlora.errors import InputError

#: source → its options that name files which every verb reads
_ALWAYS_READ = {"medqlora.data.JSONLines": ("train", "dev", "test"), "medqlora.data.PubMedQA": ("path",)}


#: values of `--ckpt_path` that stand for a file, of `fit` and of the verbs that evaluate
RESUMED, EVALUATED = ("last", "best", "auto"), ("last", "best")


def check_checkpoint(file: Path) -> None:
    """Raises InputError for a checkpoint that doesn't exist."""
    if not file.is_file():
        raise InputError(
            f"--ckpt_path: there is no file '{file}': give a .ckpt of a run's checkpoints/ folder"
        )


def check_files(
    verb: str, values: Mapping[str, object], source: str, of_source: Mapping[str, object]
) -> None:
    """Refuses a checkpoint or a data file that doesn't exist, where the verb would read it.

    Args:
        verb: fit, validate, test or predict.
        values: option → value.
        source: class path of `--data.source`.
        of_source: option of the source → value.

    Raises:
        InputError: the file is missing.
    """
    checkpoint = values.get("ckpt_path")
    words = RESUMED if verb == "fit" else EVALUATED
    if isinstance(checkpoint, str) and checkpoint not in words:
        check_checkpoint(Path(checkpoint).expanduser())
    paths = {"--data.questions": values.get("data.questions")}
    if verb != "predict":  # it may read its questions alone
        paths = {f"--data.source.{name}": of_source.get(name) for name in _ALWAYS_READ.get(source, ())}
    for option, path in paths.items():
        if isinstance(path, str) and not Path(path).expanduser().exists():
            raise InputError(f"{option}: there is no file {path}: check the path")


def check_ranges(values: Mapping[str, object]) -> None:
    """Lets the dataclasses check their values.

    Args:
        values: option → value, of the right type.

    Raises:
        InputError: a value is out of its range.
    """
    trainer.check_seed(values.get("seed_everything"))
    for group, kind in GROUPS.items():
        names = {field.name for field in dataclasses.fields(kind)}
        given = {
            key[len(group) + 1 :]: value
            for key, value in values.items()
            if key.startswith(f"{group}.") and key[len(group) + 1 :] in names
        }
        check = getattr(kind(**given), "check", None)
        if check is not None:
            check()
    given = {key[8:]: value for key, value in values.items() if key.startswith("trainer.")}
    trainer.check_values(given)
    if not given.get("plugins"):
        precision = str(given.get("precision"))
        trainer.check_precision(trainer.PRECISIONS.get(precision, precision))
    if isinstance(given.get("strategy"), str):
        trainer.check_strategy_name(str(given["strategy"]))
