"""The base that an adapter was trained on, against the base of a run."""

import re
from pathlib import Path

from medqlora.errors import InputError
from medqlora.models.adapters.folder import read_adapter
from medqlora.models.weight_files import ADAPTER_CONFIG, named_base, read_object
from medqlora.utils.cache import quoted_base


def base_of(folder: str) -> str:
    """The base that PEFT's configuration names.

    Raises:
        InputError: it names none.
    """
    base = named_base(Path(folder).expanduser(), "--adapter")
    if base is None:
        raise InputError(f"{folder}/{ADAPTER_CONFIG} names no base: pass --base")
    return base


def check_adapter_base(folder: str, base: str, identity: str) -> None:
    """Raises InputError when the adapter's record names another base than `base`."""
    record = read_adapter(folder)
    trained_on = record.get("base_identity")
    if trained_on is not None and trained_on != identity:
        raise InputError(
            f"--model.adapter: '{folder}' was trained on {quoted_base(record.get('base'))}, not on "
            f"{quoted_base(base)}: pass the adapter of a run on this base, or that base as --model.backend.base"
        )


def base_remark(folder: str, base: str) -> str | None:
    """A note where `adapter_config.json` names another base than `base`, and no record says which is right.

    One base may have several names: a local copy, another quantization of it. So it is no error.

    Args:
        folder: the adapter's.
        base: the run's base, by name or folder.
    """
    if read_adapter(folder).get("base_identity") is not None:
        return None  # `check_adapter_base` compares those
    named = named_base(Path(folder).expanduser(), "--model.adapter")
    if named is None or _short(named) in _short_names(base):
        return None
    return (
        f"Note: {Path(folder) / ADAPTER_CONFIG} names the base '{named}', and this run uses '{base}': if they are "
        "different models, the results are not the adapter's"
    )


def _short_names(base: str) -> set[str]:
    """The base's own short name, and the one in its config.json."""
    names = {_short(base)}
    config = Path(base).expanduser() / "config.json"
    if config.is_file():
        recorded = read_object(config).get("_name_or_path")
        if isinstance(recorded, str):
            names.add(_short(recorded))
    return names - {""}


def _short(base: str) -> str:
    """A base's name without owner, folder and quantization: users rename copies."""
    hub_folder = re.search(r"models--.+?--([^/\\]+)", base)  # in the Hub's cache
    name = hub_folder[1] if hub_folder else re.split(r"[/\\]", base.rstrip("/\\"))[-1]
    return re.sub(r"(-unsloth)?(-bnb-4bit)?$", "", name.lower())
