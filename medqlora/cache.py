"""Where files that can be made again are kept between runs."""

import os
from pathlib import Path


def cache_folder(*parts: str) -> Path:
    """The folder `parts` under the cache root, created when missing.

    The root is `$MEDQLORA_CACHE`, else `$XDG_CACHE_HOME/medqlora`, else `~/.cache/medqlora`.

    Raises:
        OSError: the folder can't be created.
    """
    root = os.environ.get("MEDQLORA_CACHE")
    if root is None:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = Path(base, "medqlora", *parts)
    else:
        folder = Path(root, *parts)
    folder = folder.expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    return folder
