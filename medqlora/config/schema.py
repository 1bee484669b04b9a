"""All options of Lightning's verbs, as data: name, type, default and help, without torch or Lightning."""

import dataclasses
import inspect
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Literal, get_type_hints

from medqlora.config import trainer
from medqlora.config.backends import (
    TinyLlamaOptions,
    TinyVisionOptions,
    TransformersOptions,
    UnslothOptions,
    UnslothVisionOptions,
    VisionLanguageOptions,
)
from medqlora.config.callbacks import (
    AnswersOptions,
    AverageOptions,
    CheckpointOptions,
    GPUMemoryOptions,
    ProgressOptions,
    ReportOptions,
)
from medqlora.config.data import DataOptions
from medqlora.config.docstrings import arguments, summary
from medqlora.config.lora import LoRAOptions
from medqlora.config.model import ModelOptions
from medqlora.config.optimizers import FLAT_OPTIMIZERS
from medqlora.config.retrieval import RetrievalOptions

Kind = Literal["", "backend", "source", "optimizer", "scheduler", "class", "stages"]
VERBS = ("fit", "validate", "test", "predict")
REQUIRED = inspect.Parameter.empty

#: class_path → the dataclass of its options
BACKENDS: Mapping[str, type] = {
    "medqlora.models.Transformers": TransformersOptions,
    "medqlora.models.Unsloth": UnslothOptions,
    "medqlora.models.TinyLlama": TinyLlamaOptions,
    "medqlora.models.VisionLanguage": VisionLanguageOptions,
    "medqlora.models.TinyVision": TinyVisionOptions,
    "medqlora.models.UnslothVision": UnslothVisionOptions,
}
#: groups whose options are the fields of a dataclass
GROUPS: Mapping[str, type] = {
    "model.lora": LoRAOptions,
    "model": ModelOptions,
    "data.retrieval": RetrievalOptions,
    "data": DataOptions,
    "checkpoint": CheckpointOptions,
    "average": AverageOptions,
    "gpu_memory": GPUMemoryOptions,
    "progress": ProgressOptions,
    "report": ReportOptions,
    "answers": AnswersOptions,
}
#: groups of a run's `config.yaml` without options
EMPTY_GROUPS = frozenset({"throughput"})


@dataclasses.dataclass(frozen=True)
class Option:
    """One option.

    Args:
        name: with its groups, as "model.lora.r".
        hint: its type; `object` where Lightning's own parser checks the value.
        default: `REQUIRED` where there is none.
        help: one line.
        kind: what a class_path given to it has to name; "" where it takes no class.
        many: it takes a list of classes too.
    """

    name: str
    hint: object
    default: object
    help: str
    kind: Kind = ""
    many: bool = False


@cache
def options(verb: str) -> dict[str, Option]:
    """Name → option of a verb, grouped in the order of the help."""
    listed = [*_general(verb), *_of_model(), *_of_data(), *_of_trainer()]
    for group in ("checkpoint", "average", "progress", "report", "answers", "gpu_memory"):
        listed += fields(GROUPS[group], group)
    return {option.name: option for option in listed}


@cache
def groups(verb: str) -> frozenset[str]:
    """Names that hold other options, as "model.lora"."""
    names = {option.name.rpartition(".")[0] for option in options(verb).values()}
    return frozenset(names - {""}) | EMPTY_GROUPS


def fields(kind: type, group: str) -> list[Option]:
    """The fields of a dataclass as options under `group`."""
    hints, help_of = get_type_hints(kind), arguments(kind)
    return [
        Option(
            f"{group}.{field.name}",
            hints[field.name],
            REQUIRED if field.default is dataclasses.MISSING else field.default,
            help_of.get(field.name, ""),
        )
        for field in dataclasses.fields(kind)
    ]


def parameters(kind: type, group: str) -> list[Option]:
    """The arguments of a class's constructor as options under `group`."""
    constructor = inspect.signature(kind, eval_str=True).parameters
    help_of = arguments(kind)
    return [
        Option(f"{group}.{name}", one.annotation, one.default, help_of.get(name, ""))
        for name, one in constructor.items()
        if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)
    ]


@cache
def sources() -> dict[str, type]:
    """class_path → source, of every source that comes along."""
    data = import_module("medqlora.data")
    base = data.Source
    found = {name: getattr(data, name) for name in data.__all__}
    kinds = {name: kind for name, kind in found.items() if isinstance(kind, type) and issubclass(kind, base)}
    order = ["PubMedQA", "JSONLines", "SyntheticTrials"]
    names = [*order, *(name for name in kinds if name not in (*order, "Source"))]
    return {f"medqlora.data.{name}": kinds[name] for name in names}


def known_classes(kind: Kind) -> tuple[str, ...]:
    """The class_paths that come along for an option of this kind; none where any class may be named."""
    if kind == "backend":
        return tuple(BACKENDS)
    return tuple(sources()) if kind == "source" else ()


def class_options(kind: Kind, class_path: str, group: str) -> dict[str, Option] | None:
    """Name without group → option of a class that comes along; None for any other class."""
    if kind == "backend" and class_path in BACKENDS:
        listed = fields(BACKENDS[class_path], group)
    elif kind == "source" and class_path in sources():
        listed = parameters(sources()[class_path], group)
    else:
        return None
    return {option.name.rpartition(".")[2]: option for option in listed}


def class_summary(kind: Kind, class_path: str) -> str:
    """What a class that comes along is, in a line."""
    return summary(BACKENDS[class_path] if kind == "backend" else sources()[class_path])


# ---- the groups --------------------------------------------------------------------------------------


def _general(verb: str) -> Iterator[Option]:
    path: object = str | Path | None
    yield Option("seed_everything", bool | int, 0, "seed of Python, NumPy and torch; false sets none.")
    checkpoint = (
        "a .ckpt file: `fit` resumes from it, or from the newest unfinished run's newest (`last`) or best (`best`); "
        "`auto` is `last`, or a new run where none is unfinished. Other verbs evaluate its weights instead of an "
        "adapter folder's, with `last` or `best` those of the newest run."
    )
    yield Option("ckpt_path", path, None, checkpoint)
    if verb in ("validate", "test"):
        yield Option("verbose", bool, True, "without effect: the scores are printed in a table of their own.")
    if verb == "predict":
        yield Option("return_predictions", bool | None, None, "without effect: the answers go to a file.")
    yield Option(
        "weights_only", bool | None, None, "without effect: a checkpoint is always read as plain data."
    )
    yield Option("compare_base", bool, True, "`test` also evaluates the base model without the adapter.")
    yield Option(
        "resume_anyway",
        bool,
        False,
        "`fit --ckpt_path` resumes although options that define the run were changed.",
    )


def _of_model() -> Iterator[Option]:
    yield Option("model.backend", object, REQUIRED, "the base model: a class_path.", "backend")
    yield from fields(LoRAOptions, "model.lora")
    yield Option(
        "model.optimizer",
        object,
        "adamw_8bit",
        f"{', '.join(FLAT_OPTIMIZERS)}; another of torch.optim or bitsandbytes.optim by its class's name; or a "
        "class_path of any torch optimizer, with settings of its own.",
        "optimizer",
    )
    yield Option(
        "model.lr_scheduler",
        object,
        "cosine",
        "the learning rate after its warm-up: cosine and linear fall to 0 at the last step, constant stays; or a "
        "class_path of torch.optim.lr_scheduler, which is stepped once an optimizer step and has its own warm-up.",
        "scheduler",
    )
    # `compare_base` is an option of its own, which Lightning's parser hands to the module
    yield from (option for option in fields(ModelOptions, "model") if option.name != "model.compare_base")


def _of_data() -> Iterator[Option]:
    yield Option("data.source", object, REQUIRED, "where the questions come from: a class_path.", "source")
    benchmarks = "further sources, whose test questions `test` evaluates on the same loaded model."
    yield Option("data.benchmarks", object, None, benchmarks, "source", many=True)
    stages = (
        "a training in stages: a list, each with `source` (a class_path; null for data.source), `name`, `epochs`, "
        "`learning_rate`, `sampling` and `samples`; see docs/better-answers.md."
    )
    yield Option("data.stages", object, None, stages, "stages")
    yield from fields(DataOptions, "data")
    yield from fields(RetrievalOptions, "data.retrieval")


def _of_trainer() -> Iterator[Option]:
    for name, (hint, default, text) in trainer.OPTIONS.items():
        kind: Kind = "class" if hint is object and name not in _PLAIN_OBJECTS else ""
        given = trainer.DEFAULTS.get(name, default)
        yield Option(f"trainer.{name}", hint, given, text, kind, many=name in trainer.CLASS_LISTS)


#: options of the Trainer whose type Lightning's parser checks, and that take no class
_PLAIN_OBJECTS = ("max_time", "val_check_interval", "default_root_dir")
