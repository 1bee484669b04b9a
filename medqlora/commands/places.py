"""Whether a verb can write where it has to, found out before anything heavy is imported."""

import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from medqlora.config.words import named_backend, value_of
from medqlora.errors import InputError
from medqlora.utils.cache import cache_root, why_not_writable

#: the backends that keep what they can't do without in the cache
_NEED_CACHE = {"TinyLlama": "the demo's base", "Unsloth": "the code that Unsloth compiles"}


def check_places(words: Sequence[str]) -> None:
    """Refuses a verb that has no place for its cache, its downloads or its run's folder.

    Args:
        words: the verb and its options.

    Raises:
        InputError: names the variable or option to set; or a configuration can't be read.
    """
    if any(word in ("-h", "--help", "--print_config") for word in words):
        return
    note = check_cache(words)
    _check_downloads(words)
    _check_logs(words)
    if note is not None:
        print(note, file=sys.stderr, flush=True)  # what is asked for as JSON goes to stdout


def check_cache(words: Sequence[str]) -> str | None:
    """Refuses a backend that needs the cache where there is no place for it.

    Returns:
        What to say where there is none and it is not needed.

    Raises:
        InputError: names the variable; or a configuration can't be read.
    """
    kind = str(named_backend(words)).rpartition(".")[
        2
    ]  # reads the configurations: what is wrong there comes first
    try:
        root = cache_root()
        why = why_not_writable(root)
    except OSError as error:
        root, why = Path(str(error.filename)), str(error.strerror)
    if why is None:
        return None
    what = _NEED_CACHE.get(kind)
    held = kind == "TinyLlama" and any(
        root.glob("tiny_llama/[!.]*/config.json")
    )  # built, in a cache to be read
    fix = "set MEDQLORA_CACHE to a folder that can be written"
    if what and not held:
        raise InputError(f"no place for {what}: the cache {root} can't be written ({why}): {fix}")
    return f"Note: the cache {root} can't be written ({why}): tokenized questions are not kept ({fix})"


def _check_downloads(words: Sequence[str]) -> None:
    """Raises InputError for a base of the Hub that is not in its cache, where that can't be written."""
    base = value_of(words, "model.backend.base")
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    if not isinstance(base, str) or base.startswith((".", "/", "~")) or Path(base).exists() or offline:
        return
    # as huggingface_hub finds it: https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    hub = Path(os.environ.get("HF_HUB_CACHE") or Path(home, "hub"))
    with contextlib.suppress(
        RuntimeError
    ):  # no home: a folder of the name "~" is asked about, as is made there
        hub = hub.expanduser()
    if (hub / f"models--{base.replace('/', '--')}").is_dir():
        return
    if why := why_not_writable(hub):
        raise InputError(
            f"--model.backend.base {base}: no place to download it: {hub} can't be written ({why}): set HF_HOME to a "
            "folder that can be written, or pass the base's own folder"
        )


def _check_logs(words: Sequence[str]) -> None:
    """Raises InputError where the run's folder would be made by our own logger, and can't be."""
    settled = ("--trainer.logger", "--trainer.fast_dev_run", "--ckpt_path")
    if any(word.startswith(settled) for word in words):
        return
    if value_of(words, "trainer.logger") is not None or value_of(words, "trainer.fast_dev_run"):
        return
    given = value_of(words, "trainer.default_root_dir")
    root = Path(str(given or "."))
    logs = root / "lightning_logs"
    if not root.is_dir():  # a mistyped name: told with the run's other options
        return
    if why := why_not_writable(logs):
        raise InputError(
            f"--trainer.default_root_dir {root}: no run's folder can be made there ({why}): make it and let it be "
            "written in, or name another"
        )
