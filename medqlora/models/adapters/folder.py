"""Adapter folders in PEFT's format. They may come from anywhere: nothing in them runs, nothing outside is read."""

import math
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from medqlora.errors import InputError
from medqlora.models.weight_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS, read_object, refuse_lfs_pointer
from medqlora.utils.manifests import check_folder, leaves

#: this project's record beside PEFT's files
RECORD_FILE = "medqlora.json"
#: its key for test questions of benchmarks that were trained or validated on: benchmark → set → number
TEST_QUESTIONS = "test_questions"
#: PEFT's older format, which is pickled
_PICKLE_FILE = "adapter_model.bin"
#: the libraries whose modules PEFT may import
_LIBRARIES = ("transformers", "peft")
#: initialisations that PEFT repeats when it loads, and that rewrite the base
_REWRITING = ("pissa", "olora", "corda", "loftq", "lora_ga")
#: PEFT's fields for kinds of LoRA that can't be evaluated here, and why
_UNSUPPORTED = {
    "layer_replication": "it repeats layers of the base, so that `test` could not compare with the base",
    "alora_invocation_tokens": "an activated LoRA acts only behind its own invocation tokens, which no prompt here "
    "holds",
    "arrow_config": "it chooses between further adapters, which are not in this folder",
}


def reject_quantization_made_up(record: Mapping[str, object], option: str) -> None:
    """Rejects an adapter that LoftQ initialised, where it is to stand on other weights than the 4-bit base's.

    Such an adapter contains the base's quantization error: unquantized weights would get it twice.

    Args:
        record: of `read_adapter`.
        option: what asks for it, for the message.

    Raises:
        InputError: the adapter was initialised by LoftQ.
    """
    lora = record.get("lora")
    if isinstance(lora, Mapping) and lora.get("init") == "loftq":
        raise InputError(
            f"{option}: the adapter was initialised by LoftQ, and makes up for the quantization of its base, which "
            "other weights don't have: `medqlora merge` without --onto merges it onto the dequantized base"
        )


def read_adapter(folder: str, option: str = "--model.adapter") -> dict[str, object]:
    """The record that the training run wrote into the adapter's folder; {} for an adapter made elsewhere.

    Args:
        folder: in PEFT's format.
        option: the option that named it, for messages.

    Raises:
        InputError: the folder holds no adapter of PEFT's, differs from its manifest, or holds what could run code.
    """
    path = Path(folder).expanduser()
    if (path / _PICKLE_FILE).exists():
        raise InputError(
            f"{option}: '{folder}' holds {_PICKLE_FILE}, a pickle, which can run code when it is read: keep "
            f"{ADAPTER_WEIGHTS} alone, and have the weights saved as that where it is missing"
        )
    for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
        if not (path / name).is_file():
            missing = "" if path.exists() else " (there is no such folder)"
            raise InputError(f"{option}: '{folder}' holds no {name}{missing}: {_instead(path, option)}")
    _check(path, option, tuple(sorted(map(_state, path.iterdir()))))
    record = path / RECORD_FILE
    return read_object(record, option) if record.is_file() else {}


def read_merged(base: str, option: str = "--model.backend.base") -> dict[str, object]:
    """The record of the adapter that `medqlora merge` merged into a base model; {} for any other base model.

    Args:
        base: the base model's folder or its name on the Hub.
        option: the option that named it, for messages.

    Raises:
        InputError: the record is damaged, or a link out of its folder.
    """
    folder = Path(base).expanduser()
    file = folder / RECORD_FILE
    _refuse_links(folder, (RECORD_FILE,), option)
    record = read_object(file, option) if file.is_file() else {}
    if "merged" not in record:
        return {}
    _check_record(file, option)
    return record


def adapter_config(folder: str, option: str = "--adapter") -> dict[str, object]:
    """PEFT's own configuration of an adapter folder.

    Raises:
        InputError: the file is no JSON object.
    """
    return read_object(Path(folder).expanduser() / ADAPTER_CONFIG, option)


def _instead(folder: Path, option: str) -> str:
    """The fix for a folder without an adapter."""
    if (folder / "config.json").is_file() and any(folder.glob("*.safetensors")):
        return f"it is a whole model; pass it as --model.backend.base, with {option} none"
    bare = ", or 'none' for the bare base" if option == "--model.adapter" else ""
    return f"give the adapter/ folder of a finished run{bare}"


def _state(file: Path) -> tuple[str, int, int, int]:
    """Values that change when a file does."""
    status = file.lstat()
    return file.name, status.st_ino, status.st_size, status.st_mtime_ns


@lru_cache(maxsize=32)
def _check(folder: Path, option: str, state: tuple[tuple[str, int, int, int], ...]) -> None:
    """Raises InputError as `read_adapter` does. The cache saves a command from hashing the weights several times.

    Args:
        folder: the adapter's.
        option: the option that named it, for messages.
        state: of its files; part of the cache's key.
    """
    _refuse_links(folder, (ADAPTER_CONFIG, ADAPTER_WEIGHTS, RECORD_FILE), option)
    for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
        refuse_lfs_pointer(folder / name, option)
    check_folder(folder, option)
    _check_config(folder / ADAPTER_CONFIG, option)
    _check_weights(folder / ADAPTER_WEIGHTS, option)
    if (folder / RECORD_FILE).is_file():
        _check_record(folder / RECORD_FILE, option)


def _refuse_links(folder: Path, names: tuple[str, ...], option: str) -> None:
    """Refuses files that lie outside: nothing there is opened."""
    for name in names:
        if leaves(folder / name, folder):
            raise InputError(
                f"{option}: {folder / name} is a link out of its folder: put the file itself there"
            )


def _check_record(file: Path, option: str) -> None:
    """Refuses a record whose values have other types than ours."""
    record = read_object(file, option)

    def damaged(key: str, expected: str) -> InputError:
        return InputError(f"{option}: {file}: {key} is no {expected}: the record is damaged; copy it again")

    for key in ("prompt", "data", "training", "backend_options", TEST_QUESTIONS):
        if not isinstance(record.get(key, {}), dict):
            raise damaged(key, "object")
    for key in ("labels", "train_ids", "dev_ids"):
        values = record.get(key, [])
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise damaged(key, "list of texts")
    data = record.get("data", {})
    if isinstance(data, dict) and not isinstance(data.get("max_prompt_tokens", 1), int):
        raise damaged("data.max_prompt_tokens", "whole number")


def _check_config(file: Path, option: str) -> None:
    """Refuses fields by which PEFT or transformers would import a module, or read adapters of other folders."""
    config = read_object(file, option)
    kind = config.get("peft_type")
    if kind != "LORA":  # X-LoRA and others name further folders, or read pickles
        raise InputError(f"{option}: {file}: peft_type is {kind!r}: give a LoRA adapter")
    mapping = config.get("auto_mapping") or {}
    library = (
        str(mapping.get("parent_library", "transformers")) if isinstance(mapping, dict) else str(mapping)
    )
    code = {
        "auto_mapping": None if library.split(".")[0] in _LIBRARIES else library,
        "auto_map": config.get("auto_map"),
        "megatron_config": config.get("megatron_config"),  # with it, PEFT imports megatron_core
    }
    for key, value in code.items():
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
    for key, reason in _UNSUPPORTED.items():
        if config.get(key):
            raise InputError(f"{option}: {file}: {key} is set: {reason}: give another LoRA adapter")
    _check_numbers(config, file, option)


def _check_numbers(config: Mapping[str, object], file: Path, option: str) -> None:
    """Refuses ranks and scales that are no finite numbers: NaN and infinity would reach the model's outputs."""
    fields = {key: config[key] for key in ("r", "lora_alpha") if key in config}
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


def _check_weights(file: Path, option: str) -> None:
    """Refuses a header that doesn't fit its file, before any length in it is trusted."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as stored:
            names = stored.keys()
    except (SafetensorError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{option}: {file} is not a whole safetensors file ({reason}): copy it again, or write it again with "
            "`medqlora export`"
        ) from error
    if not names:
        raise InputError(f"{option}: {file} holds no weights: give the adapter/ folder of a finished run")
