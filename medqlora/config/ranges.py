"""Checks of values that have the right type: ranges, and files that have to exist."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import get_args, get_type_hints

from medqlora.config import backends, trainer
from medqlora.config.schema import GROUPS
from medqlora.config.stored_quantization import check_stored, read_stored
from medqlora.errors import InputError

#: source → its options that name files which every verb reads
_ALWAYS_READ = {"medqlora.data.JSONLines": ("train", "dev", "test"), "medqlora.data.PubMedQA": ("path",)}


#: backend → its options
_WITH_BASE: dict[str, type[backends.TransformersOptions | backends.UnslothOptions]] = {
    "medqlora.models.Transformers": backends.TransformersOptions,
    "medqlora.models.Unsloth": backends.UnslothOptions,
    "medqlora.models.VisionLanguage": backends.VisionLanguageOptions,
    "medqlora.models.UnslothVision": backends.UnslothVisionOptions,
}
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


def check_base(backend: str, given: Mapping[str, object]) -> None:
    """Refuses a base in a folder whose files are quantized in another way than the options say, or can't be read.

    Args:
        backend: class path of `--model.backend`.
        given: option of the backend → value.

    Raises:
        InputError: names the option, the value and the fix.
    """
    kind = _WITH_BASE.get(backend)
    base = given.get("base")
    if kind is None or not isinstance(base, str) or not (folder := Path(base).expanduser()).is_dir():
        return
    stored = read_stored(folder)
    if stored is not None:
        taken = get_args(get_type_hints(kind)["quantization"])
        check_stored(stored, base, given.get("quantization", kind.quantization), taken)


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
