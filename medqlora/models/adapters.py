"""Adapter folders in PEFT's format, and the same weights inside a checkpoint."""

import json
import math
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from medqlora.errors import InputError
from medqlora.models.weight_files import refuse_lfs_pointer
from medqlora.utils.manifests import check_folder, leaves

#: what this project writes beside PEFT's files
RECORD_FILE = "medqlora.json"
#: its key for the test questions of benchmarks that were trained or validated on: benchmark → set → how many
TEST_QUESTIONS = "test_questions"
_CONFIG_FILE, _WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
#: PEFT's older format, which is pickled
_PICKLE_FILE = "adapter_model.bin"
#: whose modules PEFT may be told to import
_LIBRARIES = ("transformers", "peft")


def read_adapter(folder: str, option: str = "--model.adapter") -> dict[str, Any]:
    """What the run that made the adapter recorded of itself; {} for an adapter made elsewhere.

    Args:
        folder: in PEFT's format.
        option: what named it, for messages.

    The folder may come from anywhere: nothing is read outside it, and nothing in it is run.

    Raises:
        InputError: the folder holds no adapter of PEFT's, is not what its manifest says, or holds what could run
            code.
    """
    path = Path(folder).expanduser()
    if (path / _PICKLE_FILE).exists():
        raise InputError(
            f"{option}: '{folder}' holds {_PICKLE_FILE}, a pickle, which can run code when it is read: keep "
            f"{_WEIGHTS_FILE} alone, and have the weights saved as that where it is missing"
        )
    for name in (_CONFIG_FILE, _WEIGHTS_FILE):
        if not (path / name).is_file():
            raise InputError(f"{option}: '{folder}' holds no {name}: {_instead(path, option)}")
    _check(path, option, tuple(sorted(map(_state, path.iterdir()))))
    record = path / RECORD_FILE
    return _object(record, option) if record.is_file() else {}


def _instead(folder: Path, option: str) -> str:
    """What to give instead of a folder without an adapter."""
    if (folder / "config.json").is_file() and any(folder.glob("*.safetensors")):
        return f"it is a whole model; pass it as --model.backend.base, with {option} none"
    bare = ", or 'none' for the bare base" if option == "--model.adapter" else ""
    return f"give the adapter/ folder of a finished run{bare}"


def _state(file: Path) -> tuple[str, int, int, int]:
    """What changes when a file does."""
    found = file.lstat()
    return file.name, found.st_ino, found.st_size, found.st_mtime_ns


@lru_cache(maxsize=32)
def _check(folder: Path, option: str, state: tuple[tuple[str, int, int, int], ...]) -> None:
    """Raises InputError as `read_adapter` does; a command asks several times, and digests the weights once.

    Args:
        folder: the adapter's.
        option: what named it, for messages.
        state: of its files; the key of the answer that is kept.
    """
    for name in (_CONFIG_FILE, _WEIGHTS_FILE, RECORD_FILE):
        if leaves(folder / name, folder):
            raise InputError(
                f"{option}: {folder / name} is a link out of its folder: put the file itself there"
            )
    for name in (_CONFIG_FILE, _WEIGHTS_FILE):
        refuse_lfs_pointer(folder / name, option)
    check_folder(folder, option)
    _check_config(folder / _CONFIG_FILE, option)
    _check_weights(folder / _WEIGHTS_FILE, option)
    record = folder / RECORD_FILE
    if record.is_file():
        for key, value in _object(record, option).items():
            if key in ("prompt", "data", "training", "backend_options", TEST_QUESTIONS) and not isinstance(
                value, dict
            ):
                raise InputError(
                    f"{option}: {record}: {key} is no object: the record is damaged; copy it again"
                )
            texts = isinstance(value, list) and all(isinstance(one, str) for one in value)
            if key in ("labels", "train_ids", "dev_ids") and not texts:
                raise InputError(
                    f"{option}: {record}: {key} is no list of texts: the record is damaged; copy it again"
                )
            limit = value.get("max_prompt_tokens", 1) if key == "data" else 1
            if not isinstance(limit, int):
                raise InputError(
                    f"{option}: {record}: data.max_prompt_tokens is no whole number: the record is damaged; copy it "
                    "again"
                )


def _object(file: Path, option: str) -> dict[str, Any]:
    """A JSON file's object."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InputError(f"{option}: {file} is no JSON object: the file is damaged; copy it again")
    return found


def _check_config(file: Path, option: str) -> None:
    """Refuses the fields by which PEFT, or transformers, imports a module or reads other folders' adapters."""
    config = _object(file, option)
    kind = config.get("peft_type")
    if kind != "LORA":  # X-LoRA and others name further folders, or read pickles
        raise InputError(f"{option}: {file}: peft_type is {kind!r}: give a LoRA adapter")
    mapping = config.get("auto_mapping") or {}
    library = (
        str(mapping.get("parent_library", "transformers")) if isinstance(mapping, dict) else str(mapping)
    )
    named = {
        "auto_mapping": None if library.split(".")[0] in _LIBRARIES else library,
        "auto_map": config.get("auto_map"),
        "megatron_config": config.get("megatron_config"),  # with it, megatron_core is imported
    }
    for key, value in named.items():
        if value is not None:
            raise InputError(
                f"{option}: {file}: {key} asks for code of its own ({str(value)[:80]!r}), which is never run: do "
                "not use this adapter, or take the field out"
            )

    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_REWRITING):
        raise InputError(
            f"{option}: {file}: init_lora_weights is {start!r}, which changes the base's own weights, so that `test` "
            "could not compare with the base: convert the adapter to plain LoRA with PEFT's "
            "save_pretrained(path_initial_model_for_weight_conversion=...)"
        )
    for key, why in _UNSUPPORTED.items():
        if config.get(key):
            raise InputError(f"{option}: {file}: {key} is set: {why}: give another LoRA adapter")
    _check_numbers(config, file, option)


def _check_numbers(config: dict[str, Any], file: Path, option: str) -> None:
    """Refuses ranks and scales that are no numbers; NaN and infinity would become the model's outputs."""
    fields: dict[str, Any] = {key: config[key] for key in ("r", "lora_alpha") if key in config}
    for pattern in ("rank_pattern", "alpha_pattern"):
        values = config.get(pattern) or {}
        if isinstance(values, dict):
            fields |= {f"{pattern} {name!r}": value for name, value in values.items()}
    for name, value in fields.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise InputError(
                f"{option}: {file}: {name} is {value!r}, which is no finite number: correct it as the adapter was "
                "trained, or copy the file again"
            )


#: fields of PEFT's for kinds of LoRA that can't be evaluated here, and why
_UNSUPPORTED = {
    "layer_replication": "it repeats layers of the base, so that `test` could not compare with the base",
    "alora_invocation_tokens": "an activated LoRA acts only behind its own invocation tokens, which no prompt here "
    "holds",
    "arrow_config": "it chooses between further adapters, which are not in this folder",
}
#: initialisations that PEFT repeats as it loads, and that rewrite the base
_REWRITING = ("pissa", "olora", "corda", "loftq", "lora_ga")


def _check_weights(file: Path, option: str) -> None:
    """Refuses a header that doesn't fit its file, before a length in it is believed."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as held:
            names = held.keys()
    except (SafetensorError, OSError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{option}: {file} is not a whole safetensors file ({why}): copy it again, or write it again with "
            "`medqlora export`"
        ) from error
    if not names:
        raise InputError(f"{option}: {file} holds no weights: give the adapter/ folder of a finished run")


def adapter_config(folder: str, option: str = "--adapter") -> dict[str, object]:
    """PEFT's own configuration of an adapter folder.

    Raises:
        InputError: the file is no JSON object.
    """
    return _object(Path(folder).expanduser() / _CONFIG_FILE, option)


def base_of(folder: str) -> str:
    """The base that PEFT's own file names.

    Raises:
        InputError: it names none.
    """
    base = _object(Path(folder).expanduser() / _CONFIG_FILE, "--adapter").get("base_model_name_or_path")
    if not base or not isinstance(base, str):
        raise InputError(f"{folder}/{_CONFIG_FILE} names no base: pass --base")
    return base


def check_adapter_base(folder: str, base: str, identity: str) -> None:
    """Raises InputError when the adapter was trained on another base than `base`."""
    record = read_adapter(folder)
    trained_on = record.get("base_identity")
    if trained_on is not None and trained_on != identity:
        raise InputError(
            f"--model.adapter: '{folder}' was trained on the base '{record.get('base')}', not on '{base}': "
            "pass the adapter of a run on this base, or that base as --model.backend.base"
        )


def base_remark(folder: str, base: str) -> str | None:
    """A line where `adapter_config.json` names another base than `base`, and no record settles which it is.

    The same base may have several names: a local copy, another quantization of it. So it is no error.

    Args:
        folder: the adapter's.
        base: the name or folder that was asked for.
    """
    if read_adapter(folder).get("base_identity") is not None:
        return None  # `check_adapter_base` compares those
    named = _object(Path(folder).expanduser() / _CONFIG_FILE, "--model.adapter").get(
        "base_model_name_or_path"
    )
    if not isinstance(named, str) or not named or _short(named) in _names_of(base):
        return None
    return (
        f"Note: {Path(folder) / _CONFIG_FILE} names the base '{named}', and this run uses '{base}': if they are "
        "different models, the results are not the adapter's"
    )


def _names_of(base: str) -> set[str]:
    """The short names that a base is known by: its own, and the one that its config.json records."""
    found = {_short(base)}
    config = Path(base).expanduser() / "config.json"
    if config.is_file():
        recorded = _object(config, "--model.backend.base").get("_name_or_path")
        if isinstance(recorded, str):
            found.add(_short(recorded))
    return found - {""}


def _short(base: str) -> str:
    """A base's name without owner, folder or quantization, as people rename copies."""
    hub_folder = re.search(r"models--.+?--([^/\\]+)", base)  # in the Hub's cache
    name = hub_folder[1] if hub_folder else re.split(r"[/\\]", base.rstrip("/\\"))[-1]
    return re.sub(r"(-unsloth)?(-bnb-4bit)?$", "", name.lower())


def trainable_state(model: nn.Module) -> dict[str, Tensor]:
    """The weights that are trained, by parameter name: all that a checkpoint keeps of the model."""
    return {
        name: parameter.detach() for name, parameter in model.named_parameters() if parameter.requires_grad
    }


def save_adapter(model: Any, folder: Path, state: dict[str, Tensor]) -> None:
    """Writes the trained weights in PEFT's format: `adapter_config.json`, `adapter_model.safetensors`.

    Args:
        model: the PEFT model.
        folder: exists already.
        state: as `trainable_state` gives it, from this model or from a checkpoint of it.
    """
    # save_embedding_layers=False: PEFT would otherwise ask the Hub whether the vocabulary was changed
    model.save_pretrained(str(folder), state_dict=state, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty form; the run writes its own card
