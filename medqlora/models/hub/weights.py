"""The weight files of a base on this machine."""

from pathlib import Path

from medqlora.models.hub.config import load_config
from medqlora.models.hub.location import is_local, resolve
from medqlora.models.weight_files import check_weights


def check_files(base: str) -> list[Path]:
    """A local base's weight files, each checked by its header; none for a name on the Hub.

    Raises:
        InputError: a file is missing, cut short or a Git LFS pointer, or there are no weights.
    """
    path = resolve(base)
    if not is_local(base):
        return []
    quantized = getattr(load_config(base), "quantization_config", None) is not None
    return check_weights(Path(path), quantized=quantized)
