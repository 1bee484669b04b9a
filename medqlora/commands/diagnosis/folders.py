"""The folders that a fit writes into: its runs, its checkpoints and the caches."""

import shutil
import tempfile
from pathlib import Path

from medqlora.commands.diagnosis.finding import Finding, first_line, trouble
from medqlora.commands.diagnosis.trial import Trial
from medqlora.utils.cache import cache_folder

#: below this a checkpoint of an 8B model's adapter (0.26 GB) and its curve may not fit
_LITTLE_BYTES = 10**9


def folders(trial: Trial) -> list[Finding]:
    """Whether the fit of the trial can write into the folders that it needs, and into others that it may use."""
    option = "--trainer.default_root_dir"
    findings = [folder("logs", path, needed=True, option=option) for path in trial.log_folders]
    if trial.checkpoints is not None:
        option = "--checkpoint.dirpath"
        findings.append(folder("checkpoints", trial.checkpoints, needed=True, option=option))
    findings.append(_own_cache(needed=trial.needs_cache))
    return findings + _hub_caches(needed=trial.hub_base is not None and not trial.in_cache)


def _own_cache(*, needed: bool) -> Finding:
    name = "medqlora's cache"
    try:
        return folder(name, cache_folder(), needed=needed, option="MEDQLORA_CACHE")
    except OSError as error:
        what = f"{error.filename}: it can't be made ({error.strerror})"
        fix = "make it writable for you, or name another folder in MEDQLORA_CACHE"
        return Finding("folders", name, trouble(needed), what, fix)


def _hub_caches(*, needed: bool) -> list[Finding]:
    try:
        from huggingface_hub import constants
    except Exception as error:
        return [Finding("folders", "HF_HOME", "note", f"huggingface_hub: {first_line(error)}")]
    home, cache = Path(constants.HF_HOME), Path(constants.HF_HUB_CACHE)
    findings = [folder("HF_HOME", home, needed=needed, option="HF_HOME")]
    if not cache.is_relative_to(home):
        findings.append(folder("HF_HUB_CACHE", cache, needed=needed, option="HF_HUB_CACHE"))
    return findings


def folder(name: str, path: Path, *, needed: bool, option: str) -> Finding:
    """Whether files can be written into `path`, which may not exist yet; leaves nothing in it.

    Args:
        name: what the folder is for.
        path: the folder.
        needed: whether a fit has to write there.
        option: what chooses another folder, for the fix.
    """
    path = path.expanduser()
    parent = path.absolute()
    while not parent.is_dir():
        if parent.exists() or parent.is_symlink():
            fix = f"move that file away, or choose another folder with {option}"
            return Finding("folders", name, trouble(needed), f"{path}: {parent} is no folder", fix)
        parent = parent.parent
    try:
        with tempfile.TemporaryFile(dir=parent) as stream:
            stream.write(b"x")
            stream.flush()
        free = shutil.disk_usage(parent).free
    except OSError as error:
        fix = f"make {parent} writable for you, or choose another folder with {option}"
        what = f"{path}: it can't be written ({error.strerror})"
        return Finding("folders", name, trouble(needed), what, fix)
    there = "writable" if parent == path.absolute() else "not there yet, and can be made"
    what = f"{path}: {there}, {free / 1e9:.1f} GB free"
    if free < _LITTLE_BYTES:
        return Finding("folders", name, "note", f"{what}: that is little: free some, or choose {option}")
    return Finding("folders", name, "ok", what)
