"""Checks every option of a verb before torch or Lightning is imported.

Refuses only what Lightning's parser would refuse too, with the option or the file and line, the value and the fix.
Classes of the user's own are left to that parser; so is everything that can't be decided here.
"""

import difflib
import importlib
import os
from collections.abc import Iterable, Mapping

from medqlora.config.files import ConfigFile, Entry, parse_text, read_config
from medqlora.config.lightning_classes import check_lightning_class
from medqlora.config.linked import LINKED, check_linked
from medqlora.config.names import nearest
from medqlora.config.optimizers import FLAT_OPTIMIZERS, SCHEDULERS, is_optimizer_name, nearest_name
from medqlora.config.origin import GivenSource, Place, is_default, is_file, may_be_imported, shown
from medqlora.config.ranges import check_base, check_files, check_ranges
from medqlora.config.schema import (
    EMPTY_GROUPS,
    REQUIRED,
    Kind,
    Option,
    class_options,
    fields,
    groups,
    known_classes,
    options,
)
from medqlora.config.stages import StageOptions
from medqlora.config.values import convert, fits, wanted
from medqlora.config.words import CONFIG_OPTIONS, CommandLine
from medqlora.config.words import Option as Word
from medqlora.errors import InputError
from medqlora.utils.registry import PLUGINS

#: take no value, or one that only Lightning's parser knows
_NOT_CHECKED = ("help", "h", "print_config", *CONFIG_OPTIONS)
#: groups with options that no `null` can stand for, where their type has none
_NUMBERS_OR_TEXT = ("model.", "data.", "checkpoint.")


class UnknownOptionError(InputError):
    """The command line has an option that the command doesn't have."""


def check_options(
    verb: str, words: list[str], own: Iterable[str] = (), *, files: bool = False
) -> GivenSource:
    """Checks the options of a verb, and the configurations that they name.

    Args:
        verb: Lightning's; a command that takes a fit's options passes "fit".
        words: the options, configurations first.
        own: further options of the command, which a mistyped one may mean.
        files: also refuse a checkpoint or a data file that doesn't exist.

    Returns: the source of the data.

    Raises:
        InputError: the first that is wrong: in the configurations in their order, then on the command line, then
            options that are missing, then values out of range.
    """
    line = CommandLine.parse(words)
    if line.has("print_shtab") or any(option.name.endswith(".help") for option in line.options):
        return GivenSource("", {})
    check = _Check(verb, line, own)
    for name in line.configs:
        check.file(read_config(name))
    for word in line.options:
        check.word(word)
    check.end()
    source = check.classes.get("data.source", ("", None))[0]
    given = check.class_given.get("data.source", {})
    if files:
        check_files(verb, check.values, source, given)
    return GivenSource("" if check.elsewhere or check.staged else source, given)


class _Check:
    def __init__(self, verb: str, line: CommandLine, own: Iterable[str]) -> None:
        self.options = dict(options(verb))  # the sources of stages are added
        self.groups = groups(verb)
        self.line = line
        self.own = tuple(name.lstrip("-") for name in own)
        #: option → the class that it names so far, and where
        self.classes: dict[str, tuple[str, Place]] = {}
        #: option that names a class → what was given to any class of it
        self.class_given: dict[str, dict[str, object]] = {}
        self.values: dict[str, object] = {}  # option → its last value
        self.elsewhere = False  # a part of the options stands in a file that isn't looked into
        self.staged = False  # has stages, which may read other data

    # ---- configurations ------------------------------------------------------------------------------

    def file(self, config: ConfigFile) -> None:
        check_linked(config)
        self.group("", config.root, Place(config.name))

    def group(self, prefix: str, entry: Entry, place: Place) -> None:
        """Checks the options in a mapping."""
        for name, part in (entry.entries or {}).items():
            key = f"{prefix}.{name}".lstrip(".").removesuffix("+")
            here = place.at(part)
            if key in self.options:
                self.entry(self.options[key], part, here, append=name.endswith("+"))
            elif key in self.groups:
                self.group_value(key, part, here)
            elif not self._of_class(key, part, here) and key not in (*_NOT_CHECKED, *LINKED):
                raise self.unknown(key, here)

    def group_value(self, key: str, entry: Entry, place: Place) -> None:
        """Checks the value of a name that holds other options: a mapping of them, or a file of its own."""
        if entry.entries is not None:
            self.group(key, entry, place)
        elif is_file(entry.value):
            self.elsewhere = True
        elif entry.value is not None:
            inner = sorted(name for name in self.options if name.startswith(f"{key}."))
            listed = f"write --{inner[0]}, --{inner[-1]}, …" if inner else "leave the value out"
            raise InputError(f"{place.of(key)}{shown(entry.value)}: it has options of its own: {listed}")

    # ---- the command line ------------------------------------------------------------------------------

    def word(self, word: Word) -> None:
        """Checks an option as it was typed."""
        key, place = word.name, Place()
        if key in _NOT_CHECKED:
            return
        known = key in self.options or key in self.groups or self._class_option(key) is not None
        if not known or key in EMPTY_GROUPS:
            raise self.unknown(key, place)
        if word.strays:
            stray = word.strays[0]
            raise InputError(f"'{stray}' belongs to no option: write --OPTION {stray}, or leave it out")
        if word.value is None:
            raise InputError(f"--{key}: its value is missing: write --{key} VALUE")
        if key in self.groups:
            self.group_value(key, parse_text(word.value), place)
        elif key in self.options:
            self.text(self.options[key], word, place)
        else:
            self._of_class(key, Entry(word.value), place, typed=True)

    def text(self, option: Option, word: Word, place: Place) -> None:
        """Checks the value of an option that stands on the command line."""
        entry = parse_text(str(word.value))
        if option.kind and isinstance(entry.value, (Mapping, list)):
            self.entry(option, entry, place, append=word.append)
        else:
            self.entry(option, Entry(word.value), place, append=word.append, typed=True)

    # ---- values ----------------------------------------------------------------------------------------

    def entry(
        self, option: Option, entry: Entry, place: Place, *, append: bool = False, typed: bool = False
    ) -> None:
        """Checks the value of one option."""
        key = option.name
        if option.kind == "stages":
            self.stages(option, parse_text(str(entry.value)) if typed else entry, place)
            return
        if option.kind:
            if is_file(entry.value) and option.kind != "optimizer":
                self.elsewhere = True
            else:
                self.class_value(option, entry, place)
            return
        if append and entry.items is None:  # one more item of a list
            return
        if (
            entry.value is None
            and not typed
            and not (key.startswith(_NUMBERS_OR_TEXT) and option.hint is not bool)
        ):
            return  # of a file Lightning's parser takes it for every type
        if not fits(option.hint, entry.value, typed=typed) and not is_default(option, entry):
            raise InputError(f"{place.of(key)}{shown(entry.value)}: {wanted(option.hint)}")
        self.values[key] = convert(option.hint, entry.value)

    def stages(self, option: Option, entry: Entry, place: Place) -> None:
        """Checks a list of training stages."""
        if entry.value is None:
            return
        if not entry.items:
            raise InputError(f"{place.of(option.name)}{shown(entry.value)}: give a list of stages")
        self.staged = True
        for number, item in enumerate(entry.items):
            self.stage(f"{option.name}[{number}]", item, place.at(item))

    def stage(self, key: str, entry: Entry, place: Place) -> None:
        """Checks one training stage."""
        known = {one.name.rpartition(".")[2]: one for one in fields(StageOptions, key)}
        if entry.entries is None:
            raise InputError(
                f"{place.of(key)}{shown(entry.value)}: a stage is a mapping: write source: and epochs:"
            )
        values: dict[str, object] = {}
        for name, part in entry.entries.items():
            here = place.at(part)
            if name == "source":
                if part.value is not None:
                    source = Option(f"{key}.source", object, None, "", "source")
                    self.options[source.name] = source
                    self.class_value(source, part, here)
            elif name not in known:
                raise InputError(
                    f"{here.of(key)}: a stage has no option '{name}'{nearest(name, [*known, 'source'])}"
                )
            elif not fits(known[name].hint, part.value) and not is_default(known[name], part):
                raise InputError(f"{here.of(f'{key}.{name}')}{shown(part.value)}: {wanted(known[name].hint)}")
            else:
                values[name] = convert(known[name].hint, part.value)
        StageOptions(**values).check(f"--{key}")  # type: ignore[arg-type]  # each fits its type

    def class_value(self, option: Option, entry: Entry, place: Place) -> None:
        """Checks the class that an option names, and the options of the class."""
        key = option.name
        if option.many and entry.items is not None:
            for item in entry.items:
                self.class_value(option, item, place.at(item) if place.file else place)
            return
        parts = entry.entries
        path = entry.value if parts is None else parts["class_path"].value if "class_path" in parts else None
        if parts is None and not isinstance(path, str):
            self.values[key] = path
            return
        if isinstance(path, str):
            check_lightning_class(path, place.of(key), callback=key == "trainer.callbacks")
        if parts is None and not self.names_class(option, str(path), place):
            return
        if isinstance(path, str):
            path = self.known(option.kind, path, key, place)
            self.classes[key] = (path, place)
            self.values[key] = path
        given = self.classes.get(key, (None, place))[0]
        if parts is None or given is None:
            return
        inner = parts.get("init_args") if {"class_path", "init_args"} & set(parts) else entry
        listed = class_options(option.kind, given, key)
        for name, part in ((inner.entries if inner else None) or {}).items():
            self.class_option(option, listed, name, part, place.at(part))

    def names_class(self, option: Option, text: str, place: Place) -> bool:
        """Whether plain text given to an option is a class; a name that only Lightning knows is not."""
        if option.kind == "optimizer" and "." not in text:
            if is_optimizer_name(text) or text == "SparseAdam" or os.environ.get(PLUGINS):
                return False
            near = nearest_name(text)
            hint = f": did you mean '{near}'?" if near else ""
            choices = ", ".join(FLAT_OPTIMIZERS)
            raise InputError(
                f"{place.of(option.name)} {text}: choose one of {choices}, or a class_path{hint}"
            )
        if option.kind == "scheduler" and "." not in text:
            if text in SCHEDULERS or text.endswith("LR") or os.environ.get(PLUGINS):
                return False
            hint = nearest(text, SCHEDULERS).replace(" (see --help)", "")
            choices = ", ".join(SCHEDULERS)
            raise InputError(
                f"{place.of(option.name)} {text}: choose one of {choices}, or a class_path{hint}"
            )
        if option.kind == "class" and not option.many:  # accelerator, strategy, profiler
            self.values[option.name] = text
            return False
        if parse_text(text).value is None or (option.kind == "class" and text in ("true", "false")):
            self.values[option.name] = parse_text(text).value
            return False
        return "." in text or option.kind in ("backend", "source")

    def class_option(
        self,
        option: Option,
        listed: Mapping[str, Option] | None,
        name: str,
        entry: Entry,
        place: Place,
        *,
        typed: bool = False,
    ) -> None:
        """Checks one option of a class that an option names."""
        key = f"{option.name}.{name}"
        if listed is None or (class_path := self.classes.get(option.name)) is None:
            return
        first = name.partition(".")[0].removesuffix("+")
        if first not in listed:
            if any(first in (other or {}) for other in self._later(option)):
                return  # an option of a class that is named later
            near = nearest(name, listed)
            raise InputError(f"{place.of(key)}: {class_path[0]} has no option '{name}'{near}")
        self.class_given.setdefault(option.name, {})[first] = entry.value
        hint = listed[first].hint
        if (
            first == name
            and not fits(hint, entry.value, typed=typed)
            and not is_default(listed[first], entry)
        ):
            raise InputError(f"{place.of(key)}{shown(entry.value)}: {wanted(hint)}")

    def _class_option(self, key: str) -> Option | None:
        """The option that names the class whose option `key` is."""
        parts = key.split(".")
        for length in range(len(parts) - 1, 0, -1):
            option = self.options.get(".".join(parts[:length]))
            if option is not None:
                return option if option.kind or option.hint is object else None
        return None

    def _of_class(self, key: str, entry: Entry, place: Place, *, typed: bool = False) -> bool:
        """Checks an option of a class that was named before; false where `key` is none."""
        option = self._class_option(key)
        if option is None:
            return False
        name = key[len(option.name) + 1 :].removeprefix("init_args.")
        if name == "class_path":
            self.class_value(option, Entry(entry.value), place)
        elif name.partition(".")[0] not in ("dict_kwargs", "help", "init_args"):
            named = self.classes.get(option.name)
            if named is not None:
                listed = class_options(option.kind, named[0], option.name)
                self.class_option(option, listed, name, entry, place, typed=typed)
        return True

    def _later(self, option: Option) -> Iterable[Mapping[str, Option] | None]:
        """The options of the classes that the command line names for an option."""
        for word in self.line.options:
            if word.name in (option.name, f"{option.name}.class_path") and word.value:
                yield class_options(option.kind, word.value, option.name)

    # ---- classes ---------------------------------------------------------------------------------------

    def known(self, kind: Kind, path: str, key: str, place: Place) -> str:
        """The full class_path; raises InputError where there surely is no such class."""
        ours = {known.rpartition(".")[2]: known for known in known_classes(kind)}
        module, _, name = path.rpartition(".")
        if not module:
            if path in ours:
                return ours[path]
            if kind in ("", "class", "optimizer", "scheduler") or os.environ.get(PLUGINS):
                return path
            raise self.no_class(path, ours, key, place)
        if path in ours.values():
            return path
        if ours and module == next(iter(ours.values())).rpartition(".")[0]:
            public = importlib.import_module(module).__all__
            if name in public:
                return path
            raise InputError(f"{place.of(key)} {path}: there is no such class{nearest(name, public)}")
        if not may_be_imported(module):
            raise self.no_class(path, ours, key, place)
        return path

    def no_class(self, path: str, ours: Mapping[str, str], key: str, place: Place) -> InputError:
        """There is no class of this name; names the nearest, or all, of those that come along."""
        if not ours:
            hint = ": write the class with its module, like torch.optim.AdamW"
        elif near := difflib.get_close_matches(path.rpartition(".")[2], ours, 1, 0.5):
            hint = f": did you mean '{ours[near[0]]}'?"
        else:
            hint = ": choose one of " + ", ".join(ours.values())
        return InputError(f"{place.of(key)} {path}: there is no such class{hint}")

    def unknown(self, key: str, place: Place) -> InputError:
        """There is no option of this name; names the nearest."""
        known = [*self.options, *_NOT_CHECKED[:1], "print_config", "config", *self.own]
        for option in self.options.values():
            named = self.classes.get(option.name)
            known += (
                [f"{option.name}.{name}" for name in class_options(option.kind, named[0], "") or ()]
                if named
                else []
            )
        kind = UnknownOptionError if place.file is None else InputError
        return kind(f"{place.of(key)}: there is no such option{nearest(key, known)}")

    # ---- what is missing, and values out of range --------------------------------------------------------

    def end(self) -> None:
        """Checks what can be known when all options are read."""
        if self.elsewhere or any(word.name == "print_config" for word in self.line.options):
            return
        for option in self.options.values():
            if option.default is REQUIRED and option.name not in self.classes:
                if option.name in self.class_given or self.line.has(f"{option.name}."):
                    continue  # options of a class that is named nowhere: Lightning's parser says it
                raise InputError(
                    f"--{option.name} is missing: pass it, or a --config that sets it (configs/demo.yaml does)"
                )
        for key, (class_path, place) in self.classes.items():
            option = self.options[key]
            if option.many:
                continue
            for name, one in (class_options(option.kind, class_path, key) or {}).items():
                if one.default is REQUIRED and name not in self.class_given.get(key, ()):
                    raise InputError(
                        f"{place.of(key)} {class_path}: its option '{name}' is missing: write --{key}.{name} VALUE"
                    )
        check_ranges(self.values)
        backend = self.classes.get("model.backend", ("", None))[0]
        check_base(backend, self.class_given.get("model.backend", {}))
