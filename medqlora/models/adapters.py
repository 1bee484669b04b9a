"""Adapter folders in PEFT's format, and the same weights inside a checkpoint."""

import json
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from medqlora.errors import InputError

#: what this project writes beside PEFT's files
RECORD_FILE = "medqlora.json"


def read_adapter(folder: str, option: str = "--model.adapter") -> dict[str, Any]:
    """What the run that made the adapter recorded of itself; {} for an adapter made elsewhere.

    Args:
        folder: in PEFT's format.
        option: what named it, for messages.

    Raises:
        InputError: the folder holds no adapter of PEFT's.
    """
    path = Path(folder).expanduser()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        if not (path / name).is_file():
            raise InputError(
                f"{option}: '{folder}' holds no {name}: give the adapter/ folder of a finished run"
                + (", or 'none' for the bare base" if option == "--model.adapter" else "")
            )
    record = path / RECORD_FILE
    return json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}


def base_of(folder: str) -> str:
    """The base that PEFT's own file names.

    Raises:
        InputError: it names none.
    """
    config = json.loads((Path(folder).expanduser() / "adapter_config.json").read_text(encoding="utf-8"))
    base = config.get("base_model_name_or_path")
    if not base:
        raise InputError(f"{folder}/adapter_config.json names no base: pass --base")
    return str(base)


def check_adapter_base(folder: str, base: str, identity: str) -> None:
    """Raises InputError when the adapter was trained on another base than `base`."""
    record = read_adapter(folder)
    trained_on = record.get("base_identity")
    if trained_on is not None and trained_on != identity:
        raise InputError(
            f"--model.adapter: '{folder}' was trained on the base '{record.get('base')}', not on '{base}': "
            "pass the adapter of a run on this base, or that base as --model.backend.base"
        )


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
