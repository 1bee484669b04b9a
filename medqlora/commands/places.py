"""Whether a verb can write its cache, its downloads and its run folder, before anything heavy is imported."""

import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from medqlora.artifacts.run_folder import LOGS
from medqlora.config.words import CommandLine
from medqlora.errors import InputError
from medqlora.utils.cache import cache_root, why_not_writable

#: backend → what it keeps in the cache and can't do without
_NEED_CACHE = {
    "TinyLlama": "the demo's base",
    "TinyVision": "the demo's base",
    "Unsloth": "the code that Unsloth compiles",
}
#: backend → the cache's folder of its base
_BUILT = {"TinyLlama": "tiny_llama", "TinyVision": "tiny_vision"}


def check_places(words: Sequence[str]) -> None:
    """Refuses a verb that can't write its cache, its downloads or its run folder.

    Args:
        words: the verb and its options.

    Raises:
        InputError: names the variable or option to set; or a configuration can't be read.
    """
    line = CommandLine.parse(words)
    if line.wants_help or line.has("print_config"):
        return
    note = check_cache(words)
    _check_downloads(line)
    _check_logs(line)
    _check_runs(line)
    if note is not None:
        print(note, file=sys.stderr, flush=True)  # stdout may be read as JSON


def check_cache(words: Sequence[str]) -> str | None:
    """Refuses a backend that needs the cache where it can't be written.

    Returns:
        A note where the cache can't be written and isn't needed; else None.

    Raises:
        InputError: names the variable; or a configuration can't be read.
    """
    # reads the configurations: an error in them comes first
    backend = str(CommandLine.parse(words).class_path("model.backend")).rpartition(".")[2]
    try:
        root = cache_root()
        why = why_not_writable(root)
    except OSError as error:
        root, why = Path(str(error.filename)), str(error.strerror)
    if why is None:
        return None
    content = _NEED_CACHE.get(backend)
    # the demo's base may have been built before, in a cache that is now read-only
    built = backend in _BUILT and any(root.glob(f"{_BUILT[backend]}/[!.]*/config.json"))
    fix = "set MEDQLORA_CACHE to a folder that can be written"
    if content and not built:
        raise InputError(f"no place for {content}: the cache {root} can't be written ({why}): {fix}")
    return f"Note: the cache {root} can't be written ({why}): tokenized questions are not kept ({fix})"


def _check_downloads(line: CommandLine) -> None:
    """Raises InputError for a base of the Hub that is not in the Hub's cache, where that can't be written."""
    base = line.value("model.backend.base")
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    if not isinstance(base, str) or base.startswith((".", "/", "~")) or Path(base).exists() or offline:
        return
    # as huggingface_hub finds it: https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    hub = Path(os.environ.get("HF_HUB_CACHE") or Path(home, "hub"))
    with contextlib.suppress(
        RuntimeError
    ):  # without a home: a folder with the name "~", as huggingface_hub makes it
        hub = hub.expanduser()
    if (hub / f"models--{base.replace('/', '--')}").is_dir():
        return
    if why := why_not_writable(hub):
        raise InputError(
            f"--model.backend.base {base}: no place to download it: {hub} can't be written ({why}): set HF_HOME to a "
            "folder that can be written, or pass the base's own folder"
        )


def _check_runs(line: CommandLine) -> None:
    """Raises InputError for the checkpoint of an earlier run where there is no run at all."""
    word, logs = line.value("ckpt_path"), _root(line) / LOGS
    if word in ("last", "best") and not logs.is_dir():
        raise InputError(f"--ckpt_path {word}: there are no runs in {logs}: leave the option out")


def _root(line: CommandLine) -> Path:
    return Path(str(line.value("trainer.default_root_dir") or ".")).expanduser()


def _check_logs(line: CommandLine) -> None:
    """Raises InputError where this project's logger would make the run folder, and can't."""
    if line.has("trainer.logger", "trainer.fast_dev_run", "ckpt_path"):
        return
    if line.value("trainer.logger") is not None or line.value("trainer.fast_dev_run"):
        return
    root = _root(line)
    if why := why_not_writable(root / LOGS):
        raise InputError(
            f"--trainer.default_root_dir {root}: no run's folder can be made there ({why}): let it be written in, "
            "or name another"
        )
