"""A library of adapters on one base model: a folder with `library.toml`, the adapters, and the topic classifier.

library.toml        the adapters: name, folder, SHA-256, base model, topics, prompt, calibration, test figures
adapters/NAME/      a copy of each adapter's folder
router.npz          the topic classifier, see `medqlora.inference.topic_router`
comparison.html, comparison.json   what `medqlora library compare` found
"""

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from medqlora.compat.toml import read_toml, write_toml
from medqlora.data.topics import in_topics
from medqlora.errors import InputError
from medqlora.inference.topic_router import TopicRouter
from medqlora.models.adapters import read_adapter
from medqlora.models.weight_files import ADAPTER_WEIGHTS
from medqlora.records import Record
from medqlora.utils.digests import file_digest
from medqlora.utils.files import now, write_text
from medqlora.utils.manifests import leaves

FILE, ROUTER = "library.toml", "router.npz"
#: raised when a field's meaning changes
VERSION = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
#: names that mean something else where an adapter is named
_TAKEN = ("base", "library", "none")


@dataclass(frozen=True)
class Entry:
    """An adapter of a library.

    Attributes:
        name: in the library, and as a served model.
        adapter: its folder, within the library.
        sha256: of its weights.
        base, base_identity: its base model.
        topics: names of the topics that it is for; empty for the general adapter.
        own_topics: whether its training questions are all of its topics (`data.topics` at its fit).
        prompt, prompt_sha256: what it was trained with.
        calibration: temperature, threshold and n; empty without one.
        test: dataset, n, accuracy, accuracy_ci95, macro_f1 and report; empty without a test.
        compared: of `library compare`: questions of its topics, difference from the general adapter, p and verdict.
        added: a UTC time.
    """

    name: str
    adapter: str
    sha256: str
    base: str
    base_identity: str
    topics: tuple[str, ...] = ()
    own_topics: bool = False
    prompt: str = ""
    prompt_sha256: str = ""
    calibration: Mapping[str, object] = field(default_factory=dict)
    test: Mapping[str, object] = field(default_factory=dict)
    compared: Mapping[str, object] = field(default_factory=dict)
    added: str = field(default_factory=now)

    def has_topic(self, record: Record) -> bool:
        """Whether a question is of one of its topics or MeSH branches; upper and lower case are the same."""
        return in_topics(record, self.topics)


@dataclass(frozen=True)
class Library:
    """A library.

    Attributes:
        path: its folder.
        general: name of the adapter that answers what no specialised one is for.
        entries: name → adapter.
    """

    path: Path
    general: str
    entries: Mapping[str, Entry]

    @classmethod
    def open(cls, folder: str, option: str = "--library") -> "Library":
        """Reads a library.

        Raises:
            InputError: there is none, or its file is damaged.
        """
        path = Path(folder).expanduser()
        file = path / FILE
        if not file.is_file():
            raise InputError(
                f"{option} {folder}: it holds no {FILE}: make one with `medqlora library add NAME ADAPTER`"
            )
        try:
            content = read_toml(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(
                f"{option}: {file}: not TOML ({error}): correct it, or add the adapters again"
            ) from error
        if content.get("version") != VERSION:
            raise InputError(
                f"{option}: {file}: version {content.get('version')!r} is not known here: update medqlora"
            )
        rows = content.get("adapters")
        if not isinstance(rows, list) or not rows:
            raise InputError(f"{option}: {file}: it lists no adapters: add one with `medqlora library add`")
        entries = {}
        for row in rows:
            entry = _entry(row, f"{option}: {file}")
            if entry.name in entries:
                raise InputError(f"{option}: {file}: two adapters have the name {entry.name!r}: rename one")
            entries[entry.name] = entry
        general = content.get("general")
        if general not in entries:
            raise InputError(
                f"{option}: {file}: general is {general!r}, and no adapter has that name: name one that has"
            )
        return cls(path, str(general), entries)

    @property
    def names(self) -> list[str]:
        """The names, the general adapter's first."""
        return [self.general, *(name for name in self.entries if name != self.general)]

    @property
    def specialised(self) -> list[Entry]:
        """The adapters with topics of their own."""
        return [entry for entry in self.entries.values() if entry.name != self.general]

    def folder(self, name: str) -> str:
        """The folder of an adapter."""
        return str(self.path / self.entries[name].adapter)

    def folders(self) -> dict[str, str]:
        """Name → folder, the general adapter's first.

        Raises:
            InputError: an adapter is missing or damaged, or its weights are not those that were added.
        """
        found = {}
        for name in self.names:
            folder, entry = self.folder(name), self.entries[name]
            if leaves(Path(folder), self.path):
                raise InputError(
                    f"--library {self.path}: {name} is a link to a folder outside the library: add it again"
                )
            read_adapter(folder, f"--library {self.path}")
            if file_digest(Path(folder) / ADAPTER_WEIGHTS)["sha256"] != entry.sha256:
                raise InputError(
                    f"--library {self.path}: the weights of {name} are not those that were added (SHA-256): add "
                    "it again"
                )
            found[name] = folder
        return found

    def router(self) -> TopicRouter | None:
        """The topic classifier; None where there is none, and every question goes to the general adapter.

        Raises:
            InputError: it is damaged, or of other adapters.
        """
        file = self.path / ROUTER
        if not file.is_file():
            return None
        router = TopicRouter.load(file)
        if router.general != self.general or not set(router.names) <= set(self.entries):
            raise InputError(
                f"--library {self.path}: {ROUTER} is of other adapters: add one again, which trains it anew"
            )
        return router

    def saved(self, **changes: object) -> "Library":
        """Writes the library with changed attributes; the file is replaced at once.

        Raises:
            OSError: it can't be written.
        """
        changed = replace(self, **changes)  # type: ignore[arg-type]  # names of the attributes
        rows = [_row(changed.entries[name]) for name in changed.names]
        write_text(
            self.path / FILE, write_toml({"version": VERSION, "general": changed.general, "adapters": rows})
        )
        return changed


def new_entry(
    name: str, source: str, library: Path, topics: Sequence[str], test: Mapping[str, object]
) -> Entry:
    """Copies an adapter into the library's folder, and describes it.

    Args:
        name: in the library.
        source: the adapter's folder.
        library: the library's folder, which exists.
        topics: of the adapter; empty for a general one.
        test: its test figures.

    Raises:
        InputError: the name can't be used, or the adapter is damaged.
        OSError: it can't be copied.
    """
    check_name(name)
    record = read_adapter(source, "ADAPTER")
    if not record.get("base_identity"):
        raise InputError(
            f"ADAPTER {source}: it has no record of its base model: give an adapter that `medqlora fit` trained"
        )
    place = library / "adapters" / name
    new = place.with_name(f".{name}.new")
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(new, ignore_errors=True)
    shutil.copytree(Path(source).expanduser(), new)
    if place.exists():
        shutil.rmtree(place)
    new.rename(place)
    prompt, data, calibration = (_mapping(record.get(key)) for key in ("prompt", "data", "calibration"))
    recorded = data.get("topics")
    listed = [recorded] if isinstance(recorded, str) else recorded
    own = [str(one) for one in listed] if isinstance(listed, (list, tuple)) else []
    return Entry(
        name,
        f"adapters/{name}",
        str(file_digest(place / ADAPTER_WEIGHTS)["sha256"]),
        str(record.get("base")),
        str(record["base_identity"]),
        tuple(topics) or tuple(own),
        bool(own),
        str(prompt.get("name", "")),
        str(prompt.get("sha256", "")),
        {key: calibration[key] for key in ("temperature", "threshold", "n") if key in calibration},
        test,
    )


def check_name(name: str) -> None:
    """Raises InputError for a name that is no plain word, or that means something else."""
    if not _NAME.fullmatch(name) or name.lower() in _TAKEN:
        raise InputError(
            f"NAME {name!r}: give a word of letters, digits, '-', '_' and '.', and not {' or '.join(_TAKEN)}"
        )


def _row(entry: Entry) -> dict[str, object]:
    return {
        "name": entry.name,
        "adapter": entry.adapter,
        "sha256": entry.sha256,
        "base": entry.base,
        "base_identity": entry.base_identity,
        "topics": list(entry.topics),
        "own_topics": entry.own_topics,
        "prompt": entry.prompt,
        "prompt_sha256": entry.prompt_sha256,
        "added": entry.added,
        "calibration": dict(entry.calibration),
        "test": dict(entry.test),
        "compared": dict(entry.compared),
    }


def _entry(row: object, where: str) -> Entry:
    """An adapter of library.toml. Raises InputError."""
    values = _mapping(row)
    texts = {}
    for key in ("name", "adapter", "sha256", "base", "base_identity"):
        value = values.get(key)
        if not isinstance(value, str) or not value:
            raise InputError(f"{where}: an adapter's {key} is {value!r}: give a text")
        texts[key] = value
    check_name(texts["name"])
    parts = Path(texts["adapter"]).parts
    if Path(texts["adapter"]).is_absolute() or ".." in parts:
        raise InputError(f"{where}: the adapter of {texts['name']} lies outside the library: add it again")
    topics = values.get("topics", [])
    if not isinstance(topics, list) or not all(isinstance(one, str) for one in topics):
        raise InputError(f"{where}: the topics of {texts['name']} are {topics!r}: give a list of texts")
    return Entry(
        **texts,
        topics=tuple(topics),
        own_topics=values.get("own_topics") is True,
        prompt=str(values.get("prompt", "")),
        prompt_sha256=str(values.get("prompt_sha256", "")),
        calibration=_mapping(values.get("calibration")),
        test=_mapping(values.get("test")),
        compared=_mapping(values.get("compared")),
        added=str(values.get("added", "")),
    )


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}
