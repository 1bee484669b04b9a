"""Base models from the Hub or a folder: files, configuration, tokenizer, and what tells one base from another.

Code that a base brings along (`auto_map`) is never run: there is no option for transformers' `trust_remote_code`, and
it is False wherever a base is first read. Without a value it would ask on the terminal.
"""

from medqlora.models.hub import config, tokenizer
from medqlora.models.hub.config import changed_config, check_files, has_row, load_config
from medqlora.models.hub.location import (
    adapter_beside,
    bare_folder,
    identity,
    is_local,
    resolve,
)
from medqlora.models.hub.tokenizer import check_vocabulary, load_tokenizer, remarks

__all__ = [
    "adapter_beside",
    "bare_folder",
    "changed_config",
    "check_files",
    "check_vocabulary",
    "clear_caches",
    "has_row",
    "identity",
    "is_local",
    "load_config",
    "load_tokenizer",
    "remarks",
    "resolve",
]


def clear_caches() -> None:
    """Forgets every base that was read, for a process that changes a base's files."""
    for cached in (config.load, tokenizer.load, tokenizer.remarks, identity):
        cached.cache_clear()
