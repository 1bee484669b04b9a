"""From what a user names as an adapter to its folder: a folder of PEFT's, a run's folder, or a name on the Hub."""

import re
from pathlib import Path

from medqlora.errors import InputError

_CONFIG = "adapter_config.json"
#: `owner/name` as the Hub allows it
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
#: what is fetched of a repository: an adapter, its tokenizer and our records; no whole model, pickle or code
_FETCHED = (
    "adapter_config.json",
    "adapter_model.safetensors",
    "manifest.json",
    "medqlora.json",
    "training_trace.npz",
    "README.md",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
)


def find_adapter(given: str, option: str = "--model.adapter") -> tuple[str, str | None]:
    """The folder of the adapter that `given` names, and a line where it isn't `given` itself.

    Args:
        given: a folder in PEFT's format, a run's folder (its `adapter/` is taken), or a name on the Hub
            (`owner/name`), which is downloaded into the Hub's cache.
        option: what named it, for messages.

    Raises:
        InputError: it is none of these, or can't be had from the Hub.
    """
    path = Path(given).expanduser()
    if path.is_file():
        raise InputError(f"{option}: '{given}' is a file: {_instead_of_file(path)}")
    if path.is_dir():
        return _in_folder(given, path, option)
    if _HUB_NAME.fullmatch(given) and not Path(given).parent.is_dir():
        return _from_hub(given, option)
    return given, None  # `read_adapter` says what it lacks


def _instead_of_file(path: Path) -> str:
    if path.suffix == ".ckpt":
        return "pass a checkpoint as --ckpt_path"
    if (path.parent / _CONFIG).is_file():
        return f"give its folder, {path.parent}"
    return "give an adapter's folder, or its name on the Hub"


def _in_folder(given: str, path: Path, option: str) -> tuple[str, str | None]:
    if (path / _CONFIG).exists():
        return given, None
    inner = path / "adapter"
    if (inner / _CONFIG).is_file():
        return str(inner), f"Note: '{given}' is a run's folder: its adapter {inner} is used"
    if (path / "checkpoints").is_dir():
        raise InputError(
            f"{option}: the run '{given}' has no adapter/, which a finished run has: write one with `medqlora export "
            f"--ckpt_path FILE`, a .ckpt of {path / 'checkpoints'}"
        )
    # PEFT gives each adapter with a name of its own a folder of that name; the Hub's cache has snapshots
    places = {one.parent for one in (*path.glob(f"*/{_CONFIG}"), *path.glob(f"snapshots/*/{_CONFIG}"))}
    found = sorted(places, key=_by_number)
    if found:
        raise InputError(f"{option}: '{given}' holds no {_CONFIG}: did you mean '{found[-1]}'?")
    return given, None


def _by_number(folder: Path) -> tuple[list[int], str]:
    """Orders checkpoint-500 before checkpoint-1000."""
    return [int(number) for number in re.findall(r"\d+", folder.name)], folder.name


def _from_hub(name: str, option: str) -> tuple[str, str | None]:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        folder = Path(snapshot_download(name, allow_patterns=list(_FETCHED)))
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(":. ")
        raise InputError(
            f"{option}: there is no folder '{name}', and it can't be had from the Hub ({reason}): check the name and "
            "the connection, or download it elsewhere and pass the folder"
        ) from error
    if not (folder / _CONFIG).exists():
        raise InputError(
            f"{option}: '{name}' on the Hub has no {_CONFIG}, so it is no adapter: pass a whole model as "
            f"--model.backend.base, with {option} none"
        )
    if not (folder / "adapter_model.safetensors").exists():
        raise InputError(
            f"{option}: '{name}' on the Hub has no adapter_model.safetensors (an adapter_model.bin, a pickle, is not "
            "read): ask its author for that file"
        )
    return str(folder), f"Note: the adapter '{name}' of the Hub is used, from {folder}"
