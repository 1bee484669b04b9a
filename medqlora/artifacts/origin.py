"""The base model that an exported model comes from: its name, its licence, and a digest of its files."""

import re
from pathlib import Path
from typing import NamedTuple

from medqlora.models import hub

#: identifiers as the Hub has them, by what the licence's own text begins with
_TEXTS = (
    (r"apache license\s+version 2\.0", "apache-2.0"),
    (r"mit license|permission is hereby granted, free of charge", "mit"),
    (r"llama 3\.3 community licen[cs]e", "llama3.3"),
    (r"llama 3\.2 community licen[cs]e", "llama3.2"),
    (r"llama 3\.1 community licen[cs]e", "llama3.1"),
    (r"llama 3 community licen[cs]e", "llama3"),
    (r"llama 2 community licen[cs]e", "llama2"),
)
_FILES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE")
_IDENTIFIER = re.compile(r"[\w.+-]+")
#: characters of a licence's text that are read: its heading
_HEADING = 4_000


class License(NamedTuple):
    """A licence as a model card and GGUF name it.

    Attributes:
        identifier: as on the Hub (apache-2.0, llama3, other); None where it is not known.
        name, link: of a licence that has no identifier of its own.
    """

    identifier: str | None
    name: str | None = None
    link: str | None = None


class Origin(NamedTuple):
    """A base model.

    Attributes:
        name: as the user named it.
        revision: on the Hub.
        sha256: digest of its configuration and of the beginning of every tensor.
        license: its licence.
    """

    name: str
    revision: str | None
    sha256: str
    license: License

    @property
    def repository(self) -> tuple[str, str] | None:
        """Organization and name on the Hub; None for a folder."""
        if hub.is_local(self.name) or self.name.count("/") != 1:
            return None
        organization, name = self.name.split("/")
        return organization, name


def origin_of(base: str, revision: str | None, folder: Path, license_: str | None = None) -> Origin:
    """The origin of a base model.

    Args:
        base: its folder or its name on the Hub.
        revision: on the Hub.
        folder: where its files are.
        license_: the licence's identifier, where the files do not tell it.
    """
    found = license_of(folder) if license_ is None else License(license_)
    return Origin(base, revision, hub.identity(str(folder)).removeprefix("sha256:"), found)


def license_of(folder: Path) -> License:
    """The licence by the front matter of a model card, or by the text of a licence file."""
    import yaml

    card = _text(folder / "README.md")
    if match := re.match(r"---\s*\n(.*?)\n---\s*(?:\n|$)", card, re.DOTALL):
        try:
            front = yaml.safe_load(match[1])
        except yaml.YAMLError:
            front = None
        identifier = front.get("license") if isinstance(front, dict) else None
        if isinstance(front, dict) and isinstance(identifier, str) and _IDENTIFIER.fullmatch(identifier):
            name, link = (front.get(f"license_{part}") for part in ("name", "link"))
            return License(
                identifier,
                name if isinstance(name, str) else None,
                link if isinstance(link, str) else None,
            )
    for file in _FILES:
        heading = " ".join(_text(folder / file)[:_HEADING].lower().split())
        for pattern, identifier in _TEXTS:
            if re.search(pattern, heading):
                return License(identifier)
    return License(None)


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8", errors="replace").removeprefix("\ufeff").replace("\r\n", "\n")
    except OSError:
        return ""
