"""Base models from the Hub or a folder: files, configuration, tokenizer, and what tells one base from another.

Code that a base brings along (`auto_map`) is never run: there is no option for transformers' `trust_remote_code`, and
it is False wherever a base is first read. Without a value it would ask on the terminal.
"""

from medqlora.models.hub import config, digest, tokenizer
from medqlora.models.hub.config import changed_config, has_row, load_config
from medqlora.models.hub.digest import identity
from medqlora.models.hub.location import adapter_beside, bare_folder, is_local, resolve
from medqlora.models.hub.tokenizer import check_vocabulary, load_tokenizer, remarks
from medqlora.models.hub.weights import check_files

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
    for cached in (config.load, tokenizer.load, tokenizer.remarks, digest.identity):
        cached.cache_clear()
