"""The space of `medqlora tune`: options of a fit and the values to try, from a YAML file."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from typing_extensions import TypeIs

from medqlora.config.files import Entry, read_config
from medqlora.config.names import nearest
from medqlora.config.schema import options
from medqlora.errors import InputError

Value = bool | int | float | str | None
_OTHER = "trials that validate on other questions can't be compared"
#: options that are no part of a search: of the test set, of weights, and those that `tune` gives itself
_NOT_SEARCHED = {
    "data.test_samples": "the test questions are no part of a search",
    "data.questions": "the test questions are no part of a search",
    "data.allow_test_questions": "the test questions are no part of a search",
    "data.validation_samples": _OTHER,
    "data.topics": _OTHER,
    "model.adapter": "a fit trains a new adapter",
    "trainer.devices": "a trial takes one device, and --workers runs several",
    "trainer.default_root_dir": "each trial has a folder under --out",
}
_KEYS = ("low", "high", "log", "step")


@dataclass(frozen=True)
class Choices:
    """One of these values."""

    values: tuple[Value, ...]

    @property
    def ends(self) -> tuple[Value, ...]:
        """The values to check before a search."""
        return self.values


@dataclass(frozen=True)
class Interval:
    """A number between `low` and `high`, both included; whole where both are.

    Attributes:
        log: uniform in the logarithm.
        step: distance of the values; None for any.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def ends(self) -> tuple[Value, ...]:
        """The values to check before a search."""
        return self.low, self.high


Dimension = Choices | Interval


def read_space(file: str) -> dict[str, Dimension]:
    """Option → the values to try.

    The file maps each option to a list of values, or to `low`, `high` and optionally `log` and `step`:

        model.learning_rate: {low: 1.0e-5, high: 1.0e-3, log: true}
        model.lora.r: [8, 16, 32]

    Options may be nested too, as in a configuration.

    Raises:
        InputError: names file, line, option and the fix.
    """
    if not Path(file).expanduser().is_file():
        raise InputError(f"--space: there is no file {file}: check the path")
    root = read_config(file).root
    space: dict[str, Dimension] = {}
    for name, entry in _leaves(root, ""):
        space[name] = _dimension(name, entry, f"{file}:{entry.line or 1}: {name}")
    if not space:
        raise InputError(f"--space {file}: it names no option: write one like model.lora.r: [8, 16, 32]")
    return space


def word(name: str, value: Value) -> str:
    """An option with its value, as typed on the command line."""
    return f"--{name}={value if isinstance(value, str) else json.dumps(value)}"


def _leaves(entry: Entry, prefix: str) -> "list[tuple[str, Entry]]":
    found = []
    for name, part in (entry.entries or {}).items():
        key = f"{prefix}.{name}".lstrip(".")
        if part.entries is not None and not set(part.entries) & set(_KEYS):
            found += _leaves(part, key)
        else:
            found.append((key, part))
    return found


def _dimension(name: str, entry: Entry, where: str) -> Dimension:
    known = {
        key: option
        for key, option in options("fit").items()
        if not option.kind and key.startswith(("model.", "data.", "trainer.")) and option.hint is not object
    }
    if name in _NOT_SEARCHED:
        raise InputError(f"{where}: {_NOT_SEARCHED[name]}: leave it out")
    if name.startswith(
        ("data.source", "data.benchmarks", "data.stages", "model.backend", "ckpt_path", "checkpoint")
    ):
        raise InputError(
            f"{where}: a search takes plain options of model, data and trainer: set it in the --config"
        )
    if name not in known:
        raise InputError(f"{where}: there is no such option{nearest(name, known)}")
    if entry.items is not None:
        values = tuple(_plain(item.value, where) for item in entry.items)
        if len(set(map(repr, values))) < 2:
            raise InputError(f"{where}: give two or more different values")
        return Choices(values)
    if entry.entries is None:
        raise InputError(
            f"{where}: give a list of values, or low and high: [8, 16, 32] or {{low: 1.0e-5, high: 1.0e-3}}"
        )
    return _interval({key: part.value for key, part in entry.entries.items()}, where)


def _interval(given: Mapping[str, object], where: str) -> Interval:
    unknown = [key for key in given if key not in _KEYS]
    if unknown:
        raise InputError(f"{where}: an interval has no '{unknown[0]}': give {', '.join(_KEYS)}")
    low, high, step, log = given.get("low"), given.get("high"), given.get("step"), given.get("log", False)
    if not _is_number(low) or not _is_number(high) or not low < high:
        raise InputError(f"{where}: low {low} and high {high} have to be numbers, low below high")
    if not isinstance(log, bool):
        raise InputError(f"{where}: log {log}: it has to be true or false")
    if log and (low <= 0 or step is not None):
        raise InputError(f"{where}: log: true needs low above 0, and no step")
    if step is not None and not (_is_number(step) and step > 0):
        raise InputError(f"{where}: step {step}: it has to be a number above 0")
    return Interval(low, high, log, step)


def _is_number(value: object) -> TypeIs[int | float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _plain(value: object, where: str) -> Value:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise InputError(f"{where}: {value} is no plain value: give numbers, texts, true, false or null")
