"""`medqlora library`: adapters with topics of their own beside a general one, in a folder that answers as one."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from medqlora.commands.arguments import Parser, run_action
from medqlora.commands.registry import Command
from medqlora.errors import InputError
from medqlora.utils.cache import quoted_base
from medqlora.utils.terminal import printable_line

if TYPE_CHECKING:
    from medqlora.artifacts.library import Entry, Library

COMMAND = Command(
    "library", "adapters by topic, in a folder that answers as one: add, list, show, compare, remove", rank=68
)

_HELP = """usage: medqlora library ACTION ...

A library holds a general adapter, specialised ones with their topics, and a classifier that sends each question to one
of them: `ask`, `predict`, `serve` and `test` take --library DIR.

actions:
  add      an adapter into a library; the first without topics is the general one
  list     the adapters of a library
  show     everything that is known of one
  compare  all adapters on the same test questions, with paired tests by topic
  remove   an adapter from a library

`medqlora library ACTION --help` explains an action's options.
"""


def run(command: str, words: list[str]) -> int:
    """Raises InputError for a wrong action or option, or a damaged library or adapter."""
    return run_action("library", _ACTIONS, _HELP, words)


def _with_library(action: str, description: str) -> argparse.ArgumentParser:
    parser = Parser(f"library {action}", description)
    parser.add_argument(
        "--library", metavar="DIR", default="library", help="folder of the library (default: %(default)s)"
    )
    return parser


def _add(words: list[str]) -> int:
    parser = _with_library(
        "add", "Copies an adapter into a library, and trains the library's topic classifier anew."
    )
    parser.add_argument("name", metavar="NAME", help="its name in the library")
    parser.add_argument("adapter", metavar="ADAPTER", help="adapter folder, or the folder of its run")
    parser.add_argument(
        "--topics",
        nargs="+",
        metavar="TOPIC",
        default=[],
        help="topics that it is for, as the questions' records name them (MeSH headings); default: the data.topics of "
        "its fit, where there are any",
    )
    parser.add_argument(
        "--general", action="store_true", help="it answers what no specialised adapter is for"
    )
    parser.add_argument(
        "--questions",
        metavar="FILE",
        help="questions with topics to train the classifier on; default: those that the adapters were developed on",
    )
    options = parser.parse_args(words)
    if options.general and options.topics:
        raise InputError("--topics: the general adapter has none: leave --general or --topics out")
    if options.questions is not None and not Path(options.questions).expanduser().is_file():
        raise InputError(f"--questions: there is no file '{options.questions}': name one")
    with _held(options.library) as folder:
        return _added(options, folder)


def _added(options: argparse.Namespace, folder: Path) -> int:
    from medqlora.artifacts.library import FILE, Library, check_name, new_entry
    from medqlora.artifacts.library_topics import renew_router
    from medqlora.models.adapters import find_adapter, read_adapter

    check_name(options.name)
    source, remark = find_adapter(options.adapter, "ADAPTER")
    record = read_adapter(source, "ADAPTER")
    library = Library.open(str(folder)) if (folder / FILE).is_file() else None
    if library is not None:
        _check_fits(library, options, record)
    if remark:
        print(remark, flush=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        entry = new_entry(options.name, source, folder, options.topics, _test_figures(source))
    except OSError as error:
        raise InputError(
            f"--library {options.library}: it can't be written ({error.strerror}): name another folder"
        ) from error
    if library is None:
        if entry.topics:
            _discard(folder, entry.name)
            raise InputError(
                "--topics: the first adapter of a library is its general one, which answers what no other is for: add "
                "that one first, without topics"
            )
        library = Library(folder, entry.name, {entry.name: entry})
    elif not entry.topics and not options.general and entry.name != library.general:
        _discard(folder, entry.name)
        raise InputError(
            f"--topics: {entry.name} has none: name its topics, or pass --general to replace {library.general}"
        )
    general = entry.name if options.general else library.general
    library = library.saved(general=general, entries={**library.entries, entry.name: entry})
    topics = f", for {', '.join(entry.topics)}" if entry.topics and entry.name != general else ""
    print(
        f"Added {entry.name}{' (general)' if entry.name == general else ''}{topics}: {library.folder(entry.name)}",
        flush=True,
    )
    for line in renew_router(library, options.questions):
        print(line, flush=True)
    return 0


def _check_fits(library: "Library", options: argparse.Namespace, record: dict[str, object]) -> None:
    """Raises InputError for a name that is taken, and for an adapter of another base model."""
    if options.name in library.entries:
        raise InputError(
            f"NAME {options.name}: the library has an adapter of this name: remove it first, or give another name"
        )
    base = library.entries[library.general]
    if record.get("base_identity") != base.base_identity:
        raise InputError(
            f"ADAPTER {options.adapter}: it was trained on {quoted_base(record.get('base'))}, and the library's "
            f"adapters on {quoted_base(base.base)}: a library has one base model"
        )


def _discard(folder: Path, name: str) -> None:
    import shutil

    shutil.rmtree(folder / "adapters" / name, ignore_errors=True)
    for path in (folder / "adapters", folder):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def _test_figures(adapter: str) -> dict[str, object]:
    """The figures of the newest test of the adapter that lies beside its run; {} without one."""
    from medqlora.artifacts.run_summary import test_figures

    return test_figures(Path(adapter).expanduser())


def _list(words: list[str]) -> int:
    parser = _with_library("list", "Lists the adapters of a library.")
    parser.add_argument("--json", action="store_true", help="print a line of JSON for each adapter")
    options = parser.parse_args(words)
    library = _opened(options.library)
    if options.json:
        for name in library.names:
            print(json.dumps(_plain(library, library.entries[name]), ensure_ascii=False))
        return 0
    print(f"{'name':<20}{'accuracy':>10}{'n':>7}  topics")
    for name in library.names:
        entry = library.entries[name]
        accuracy, n = entry.test.get("accuracy"), entry.test.get("n")
        shown = f"{accuracy:.1%}" if isinstance(accuracy, (int, float)) else "–"
        topics = "everything else (general)" if name == library.general else ", ".join(entry.topics)
        print(
            f"{printable_line(name):<20}{shown:>10}{n if n is not None else '–':>7}  {printable_line(topics)}"
        )
    if library.router() is None and library.specialised:
        print(f"No topic classifier: every question goes to {library.general}")
    return 0


def _show(words: list[str]) -> int:
    parser = _with_library("show", "Shows everything that is known of an adapter of a library.")
    parser.add_argument("name", metavar="NAME", help="its name in the library")
    parser.add_argument("--json", action="store_true", help="print a line of JSON, with every figure")
    options = parser.parse_args(words)
    library = _opened(options.library)
    entry = _named(library, options.name)
    plain = _plain(library, entry)
    if options.json:
        print(json.dumps(plain, ensure_ascii=False))
        return 0
    from medqlora.commands.library_words import shown_entry

    for key, text in shown_entry(plain).items():
        print(f"{key:<16}{printable_line(text)}")
    return 0


def _remove(words: list[str]) -> int:
    parser = _with_library("remove", "Removes an adapter's copy from a library.")
    parser.add_argument("name", metavar="NAME", help="its name in the library")
    parser.add_argument("--questions", metavar="FILE", help="as with `library add`")
    options = parser.parse_args(words)
    with _held(options.library):
        import shutil

        from medqlora.artifacts.library import FILE, ROUTER
        from medqlora.artifacts.library_topics import renew_router

        library = _opened(options.library)
        entry = _named(library, options.name)
        if entry.name == library.general and library.specialised:
            raise InputError(
                f"NAME {entry.name}: it is the general adapter, which the others need: add another with --general first"
            )
        left = {name: one for name, one in library.entries.items() if name != entry.name}
        if left:
            library = library.saved(entries=left)
        else:
            for name in (FILE, ROUTER):
                (library.path / name).unlink(missing_ok=True)
        shutil.rmtree(library.path / entry.adapter, ignore_errors=True)
        print(f"Removed {entry.name}", flush=True)
        for line in renew_router(library, options.questions) if left else []:
            print(line, flush=True)
    return 0


def _compare(words: list[str]) -> int:
    from medqlora.commands.library_compare import run as compare

    return compare(words)


def _opened(folder: str) -> "Library":
    from medqlora.artifacts.library import Library

    return Library.open(folder)


def _named(library: "Library", name: str) -> "Entry":
    entry = library.entries.get(name)
    if entry is None:
        import difflib

        near = difflib.get_close_matches(name, library.entries, 1)
        hint = f"did you mean '{near[0]}'?" if near else f"it has {', '.join(library.names)}"
        raise InputError(f"NAME {name}: the library has no such adapter: {hint}")
    return entry


def _plain(library: "Library", entry: "Entry") -> dict[str, object]:
    from dataclasses import asdict

    return {**asdict(entry), "topics": list(entry.topics), "general": entry.name == library.general}


def _held(folder: str) -> "_Held":
    return _Held(Path(folder).expanduser())


class _Held:
    """A block in which this process alone changes a library.

    Raises:
        InputError: another process changes it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> Path:
        from medqlora.utils.locks import hold

        try:
            self._release = hold(self._folder)
        except BlockingIOError as error:
            raise InputError(
                f"--library {self._folder}: another process is changing it: wait until it has ended"
            ) from error
        return self._folder

    def __exit__(self, *error: object) -> None:
        self._release()


_ACTIONS: dict[str, Callable[[list[str]], int]] = {
    "add": _add,
    "list": _list,
    "show": _show,
    "compare": _compare,
    "remove": _remove,
}
