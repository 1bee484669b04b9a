"""Where a fit writes: its runs, its checkpoints and the caches."""

import shutil
import tempfile
from pathlib import Path
from typing import Literal

from medqlora.commands.diagnosis.finding import Finding, first_line
from medqlora.commands.diagnosis.trial import Trial

#: below this a checkpoint of an 8B model's adapter (0.26 GB) and its curve may not fit
_LITTLE_BYTES = 10**9


def folders(trial: Trial) -> list[Finding]:
    """Whether a fit as it was tried out can write where it has to, and where it may."""
    option = "--trainer.default_root_dir"
    found = [folder("logs", path, needed=True, option=option) for path in trial.log_folders]
    for number, path in enumerate(trial.log_folders):
        root = path.expanduser().parent
        if path.name == "lightning_logs" and not root.exists():  # `fit` makes the last part alone
            fix = f"make it, or name another with {option}"
            found[number] = Finding("folders", "logs", "wrong", f"{path}: there is no folder '{root}'", fix)
    if trial.checkpoints is not None:
        found.append(folder("checkpoints", trial.checkpoints, needed=True, option="--checkpoint.dirpath"))
    from medqlora.utils.cache import cache_folder

    try:
        found.append(
            folder("medqlora's cache", cache_folder(), needed=trial.needs_cache, option="MEDQLORA_CACHE")
        )
    except OSError as error:
        place = f"{error.filename}: it can't be made ({error.strerror})"
        fix = "make it writable for you, or name another folder in MEDQLORA_CACHE"
        found.append(
            Finding("folders", "medqlora's cache", "wrong" if trial.needs_cache else "note", place, fix)
        )
    try:
        from huggingface_hub import constants
    except Exception as error:
        return [*found, Finding("folders", "HF_HOME", "note", f"huggingface_hub: {first_line(error)}")]
    needed = trial.hub_base is not None and not trial.in_cache
    home, cache = Path(constants.HF_HOME), Path(constants.HF_HUB_CACHE)
    found.append(folder("HF_HOME", home, needed=needed, option="HF_HOME"))
    if not cache.is_relative_to(home):
        found.append(folder("HF_HUB_CACHE", cache, needed=needed, option="HF_HUB_CACHE"))
    return found


def folder(name: str, path: Path, *, needed: bool, option: str) -> Finding:
    """Whether files can be written into `path`, which need not be there yet; nothing is left in it.

    Args:
        name: what the folder is for.
        path: the folder.
        needed: whether a fit has to write there.
        option: what chooses another one, for the fix.
    """
    path = path.expanduser()
    state: Literal["note", "wrong"] = "wrong" if needed else "note"
    place = path.absolute()
    while not place.is_dir():
        if place.exists() or place.is_symlink():
            fix = f"move that file away, or choose another folder with {option}"
            return Finding("folders", name, state, f"{path}: {place} is no folder", fix)
        place = place.parent
    try:
        with tempfile.TemporaryFile(dir=place) as stream:
            stream.write(b"x")
            stream.flush()
        free = shutil.disk_usage(place).free
    except OSError as error:
        fix = f"make {place} writable for you, or choose another folder with {option}"
        return Finding("folders", name, state, f"{path}: it can't be written ({error.strerror})", fix)
    there = "writable" if place == path.absolute() else "not there yet, and can be made"
    found = f"{path}: {there}, {free / 1e9:.1f} GB free"
    if free < _LITTLE_BYTES:
        return Finding("folders", name, "note", f"{found}: that is little: free some, or choose {option}")
    return Finding("folders", name, "ok", found)
