"""The model that a user names: an adapter with the record of its training, or a base model alone."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import get_args

import torch

from medqlora import models
from medqlora.config.backends import BACKEND_NAMES, VISION_BACKENDS, WITHOUT_UNSLOTH, BaseQuantization
from medqlora.errors import InputError
from medqlora.inference.calibration import Calibration
from medqlora.inference.training_scope import TrainingScope
from medqlora.models import hub
from medqlora.models.adapters import (
    RECORD_FILE,
    base_of,
    base_remark,
    find_adapter,
    read_adapter,
    read_merged,
)
from medqlora.models.precision import PRECISIONS
from medqlora.models.quantization import stored_quantization
from medqlora.records import YES_NO_MAYBE

_CONFIG_FILE = "adapter_config.json"


@dataclass(frozen=True)
class Trained:
    """A model and how it was trained, with defaults for what no record says.

    Attributes:
        adapter: the adapter's folder; None for a base model alone.
        base: the base model's name or folder; None where `backend_options` hold it.
        remark: says which folder is used, where the user named another.
        backend, backend_options: the class of `medqlora.models` and its options.
        prompt, precision, max_prompt_tokens, labels, calibration: as trained.
        with_contexts: whether the training questions had contexts.
        scope: what it was trained on; None for a base model alone.
    """

    adapter: str | None = None
    base: str | None = None
    remark: str | None = None
    backend: str = "Transformers"
    backend_options: Mapping[str, object] = field(default_factory=dict)
    prompt: str = "medical"
    precision: str = "32-true"
    max_prompt_tokens: int = 1024
    labels: tuple[str, ...] = YES_NO_MAYBE
    calibration: Calibration | None = None
    with_contexts: bool = False
    scope: TrainingScope | None = None


def read_trained(name: str, option: str) -> Trained:
    """The adapter or base model that `name` names.

    Args:
        name: as in `Predictor.load`.
        option: what named it, for messages.

    Raises:
        InputError: there is no such model, or its record is damaged.
    """
    if _is_base(name):
        return _base_model(name, option)
    folder, remark = find_adapter(name, option)
    record = read_adapter(folder, option)
    options = _section(record, "backend_options")
    return replace(
        _as_recorded(record, f"{folder}/{RECORD_FILE}"),
        adapter=folder,
        base=None if "base" in options else base_of(folder),
        remark=remark,
        backend=str(record.get("backend", Trained.backend)),
        backend_options=options,
        with_contexts=bool(_section(record, "data").get("with_contexts", True)),
        scope=TrainingScope.load(Path(folder).expanduser(), record),
    )


def _base_model(name: str, option: str) -> Trained:
    """A base model; one that an adapter was merged into has that adapter's record, and is not quantized again."""
    record = read_merged(name, option)
    if not record:
        return Trained(base=name, backend_options=_stored_in(name))
    # in the type that it is stored in: a cast would round the merged weights again
    stored = str(_section(record, "merged").get("dtype"))
    trained = _as_recorded(record, f"{name}/{RECORD_FILE}")
    vision = _section(record, "merged").get("backend") in VISION_BACKENDS
    return replace(
        trained,
        backend="VisionLanguage" if vision else trained.backend,
        backend_options={"base": name, "quantization": "none"},
        precision=PRECISIONS.get(stored, trained.precision),
        scope=TrainingScope.load(Path(name).expanduser(), record),
    )


def _stored_in(base: str) -> Mapping[str, object]:
    """The quantization of a base model's own files, where the backend's default is another; else nothing."""
    with suppress(InputError):  # loading says what is wrong with the configuration
        stored = stored_quantization(hub.load_config(base))
        if stored in get_args(BaseQuantization):
            return {"quantization": stored}
    return {}


def _as_recorded(record: Mapping[str, object], where: str) -> Trained:
    """Prompt, labels, limits and calibration of a record."""
    data, training = _section(record, "data"), _section(record, "training")
    labels = record.get("labels")
    limit, calibration = data.get("max_prompt_tokens"), record.get("calibration")
    return Trained(
        prompt=str(_section(record, "prompt").get("name", Trained.prompt)),
        precision=str(training.get("precision")),
        max_prompt_tokens=limit if isinstance(limit, int) else Trained.max_prompt_tokens,
        labels=tuple(map(str, labels)) if isinstance(labels, list) else Trained.labels,
        calibration=None if calibration is None else Calibration.from_json(calibration, where),
        with_contexts=bool(data.get("with_contexts", False)),
    )


def refuse_images(trained: Trained, option: str, what: str) -> None:
    """Refuses an adapter of a vision-language base where the vision tower would be lost.

    Args:
        trained: the adapter.
        option: what named it, for the message.
        what: what has no place for images, in words: "a merged folder".

    Raises:
        InputError: it belongs to a vision-language base.
    """
    if trained.backend in VISION_BACKENDS:
        raise InputError(
            f"{option} {trained.adapter}: it belongs to a vision-language base ({trained.backend}), and {what} would "
            "leave its vision tower out: use the adapter's folder itself, with `ask`, `serve`, `predict` or PEFT"
        )


def build_backend(
    trained: Trained, *, base: str | None, backend: str | None, device: torch.device
) -> models.Backend:
    """The backend that loads the base model.

    Unsloth is imported here, before transformers and PEFT, which it patches. Weights that were trained with it are
    read by `Transformers` or `VisionLanguage` on a CPU.

    Args:
        trained: what to load.
        base, backend: replace what `trained` says.
        device: the model's.

    Raises:
        InputError: there is no such backend, it takes no base, or an option that it needs is not recorded.
    """
    name = backend or trained.backend
    if backend is None and device.type == "cpu":
        name = WITHOUT_UNSLOTH.get(name, name)
    if name not in BACKEND_NAMES:
        raise InputError(f"{RECORD_FILE}: the backend {name!r} is not known: pass --backend Transformers")
    if name in WITHOUT_UNSLOTH:
        from medqlora.models.unsloth import import_unsloth

        import_unsloth(name)
    kind = getattr(models, name)
    options = {**trained.backend_options, "base": base or trained.base or trained.backend_options.get("base")}
    known = kind.option_names()
    if base is not None and "base" not in known:
        raise InputError(f"--base {base}: the backend {name} has a base model of its own: leave --base out")
    try:
        return kind(**{key: value for key, value in options.items() if key in known})
    except TypeError as error:  # an option that is needed and not recorded
        raise InputError(f"--backend {name}: {error}: pass --base") from error


def check_files(backend: models.Backend, trained: Trained, option: str) -> None:
    """Checks the files of the base model and of the adapter, before a weight is loaded.

    Raises:
        InputError: a file is missing or damaged, or the adapter does not fit the base model.
    """
    backend.check_files()
    if trained.adapter is not None:
        backend.check_adapter(trained.adapter, option)


def pick_device(name: str) -> torch.device:
    """The device of `--device`: auto, cpu, cuda, or another of torch's names.

    Raises:
        InputError: torch has no such device, or finds no GPU.
    """
    cuda = torch.cuda.is_available()
    try:
        device = torch.device(("cuda" if cuda else "cpu") if name == "auto" else name)
    except RuntimeError as error:
        raise InputError(f"--device {name}: torch has no such device: use auto, cpu or cuda") from error
    if device.type == "cuda" and not cuda:
        raise InputError(f"--device {name}: torch finds no CUDA GPU here: use cpu")
    return device


def _section(record: Mapping[str, object], key: str) -> Mapping[str, object]:
    """An object of the record; empty where it is missing."""
    value = record.get(key)
    return value if isinstance(value, dict) else {}


def _is_base(name: str) -> bool:
    """Whether `name` is a base model, by its folder or its name on the Hub, and no adapter."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        holds_adapter = any((place / _CONFIG_FILE).is_file() for place in (folder, folder / "adapter"))
        return (folder / "config.json").is_file() and not holds_adapter
    if folder.exists() or folder.parent.is_dir() or name.count("/") != 1:
        return False
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

    try:
        hf_hub_download(name, _CONFIG_FILE)
    except EntryNotFoundError:  # also where there is no connection, and no copy in the cache
        return True
    except (HfHubHTTPError, OSError, ValueError):
        pass  # `find_adapter` says what is wrong
    return False


def remarks_of(trained: Trained, backend: models.Backend) -> tuple[str, ...]:
    """What a user has to know of a model that `backend` has loaded, a line each."""
    named = None if trained.adapter is None else base_remark(trained.adapter, backend.base)
    return tuple(line for line in (trained.remark, named, *backend.remarks()) if line)
