"""The folder of an adapter that a user names: a folder of PEFT's, a run's folder, or a name on the Hub."""

import re
from pathlib import Path

from medqlora.errors import InputError
from medqlora.models.weight_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS

#: `owner/name` as the Hub allows it
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
#: files downloaded from a repository: an adapter, its tokenizer and our records; no complete model, pickle or code
_FETCHED = (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    "manifest.json",
    "medqlora.json",
    "training_trace.npz",
    "training_scope.json",
    "README.md",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
)


def find_adapter(name: str, option: str = "--model.adapter") -> tuple[str, str | None]:
    """The folder of the adapter `name`, and a note where it isn't `name` itself.

    Args:
        name: a folder in PEFT's format, a run's folder (its `adapter/` is used), or a name on the Hub (`owner/name`),
            which is downloaded into the Hub's cache.
        option: the option that named it, for messages.

    Raises:
        InputError: it is none of these, or can't be downloaded from the Hub.
    """
    path = Path(name).expanduser()
    if path.is_file():
        raise InputError(f"{option}: '{name}' is a file: {_instead_of_file(path)}")
    if path.is_dir():
        return _in_folder(name, path, option)
    if _HUB_NAME.fullmatch(name) and not Path(name).parent.is_dir():
        return _from_hub(name, option)
    return name, None  # `read_adapter` says what it lacks


def _instead_of_file(path: Path) -> str:
    if path.suffix == ".ckpt":
        return "pass a checkpoint as --ckpt_path"
    if (path.parent / ADAPTER_CONFIG).is_file():
        return f"give its folder, {path.parent}"
    return "give an adapter's folder, or its name on the Hub"


def _in_folder(name: str, path: Path, option: str) -> tuple[str, str | None]:
    if (path / ADAPTER_CONFIG).exists():
        return name, None
    inner = path / "adapter"
    if (inner / ADAPTER_CONFIG).is_file():
        return str(inner), f"Note: '{name}' is a run's folder: its adapter {inner} is used"
    if (path / "checkpoints").is_dir():
        raise InputError(
            f"{option}: the run '{name}' has no adapter/, which a finished run has: write one with `medqlora export "
            f"--ckpt_path FILE`, a .ckpt of {path / 'checkpoints'}"
        )
    # PEFT saves a named adapter into a folder of its name; the Hub's cache has snapshots
    configs = (*path.glob(f"*/{ADAPTER_CONFIG}"), *path.glob(f"snapshots/*/{ADAPTER_CONFIG}"))
    folders = sorted({config.parent for config in configs}, key=_by_number)
    if folders:
        raise InputError(f"{option}: '{name}' holds no {ADAPTER_CONFIG}: did you mean '{folders[-1]}'?")
    return name, None


def _by_number(folder: Path) -> tuple[list[int], str]:
    """The key that sorts checkpoint-500 before checkpoint-1000."""
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
    if not (folder / ADAPTER_CONFIG).exists():
        raise InputError(
            f"{option}: '{name}' on the Hub has no {ADAPTER_CONFIG}, so it is no adapter: pass a whole model as "
            f"--model.backend.base, with {option} none"
        )
    if not (folder / ADAPTER_WEIGHTS).exists():
        raise InputError(
            f"{option}: '{name}' on the Hub has no {ADAPTER_WEIGHTS} (an adapter_model.bin, a pickle, is not "
            "read): ask its author for that file"
        )
    return str(folder), f"Note: the adapter '{name}' of the Hub is used, from {folder}"
