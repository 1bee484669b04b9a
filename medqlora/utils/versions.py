"""The versions of installed packages."""

from collections.abc import Iterable
from importlib import metadata

from medqlora import __version__

#: packages whose version can change a result
RESULT_PACKAGES = ("torch", "lightning", "transformers", "peft", "bitsandbytes", "datasets", "unsloth")


def installed(name: str) -> str | None:
    """The version of an installed package; None where it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def versions(names: Iterable[str] = RESULT_PACKAGES) -> dict[str, str]:
    """The version of medqlora and of those named packages that are installed."""
    found = {name: installed(name) for name in names}
    return {"medqlora": __version__} | {name: version for name, version in found.items() if version}
