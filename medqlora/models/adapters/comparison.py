"""The comparison of an adapter file's tensors with the weights that a model has for them, and its result in words."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from medqlora.models.layers import LAYER_NUMBER
from medqlora.models.weight_files import ADAPTER_CONFIG

#: PEFT's name of the one adapter; it stands in the model's names and usually not in the file's
ADAPTER_NAME = "default"

Shape = tuple[int, ...]


class LoadResult(Protocol):
    """torch's result of `load_state_dict`; a tensor of another shape counts as missing."""

    missing_keys: list[str]
    unexpected_keys: list[str]


@dataclass(frozen=True)
class Comparison:
    """An adapter's tensors against a model's adapter weights.

    Attributes:
        tensors: number of tensors in the file.
        unexpected: names in the file that the model has no weight for.
        twice: names in the file that stand for the same weight as another's.
        misshapen: name → (the file's shape, the model's).
        unfilled: names of the model's adapter weights without a tensor in the file.
        weights: names of all of the model's adapter weights.
        depth: number of layers in the model, by its names.
    """

    tensors: int
    unexpected: tuple[str, ...]
    twice: tuple[str, ...]
    misshapen: Mapping[str, tuple[Shape, Shape]]
    unfilled: tuple[str, ...]
    weights: tuple[str, ...]
    depth: int

    @property
    def fits(self) -> bool:
        return not (self.unexpected or self.twice or self.misshapen or self.unfilled)

    @property
    def fitting(self) -> int:
        """Number of the file's tensors that fit a weight."""
        return max(0, self.tensors - len(self.unexpected) - len(self.twice) - len(self.misshapen))

    def reason(self) -> str:
        """Why the adapter doesn't fit, in a few words."""
        if self.misshapen:
            name, (theirs, ours) = next(iter(sorted(self.misshapen.items())))
            return f"other shapes: '{name}' is {list(theirs)} in the adapter, {list(ours)} in the base"
        if self.twice:
            return f"'{self.twice[0]}' stands twice in the adapter"
        return self._unexpected_reason() if self.unexpected else self._unfilled_reason()

    def _unexpected_reason(self) -> str:
        name = self.unexpected[0]
        counterpart = {_from_layer(weight): weight for weight in self.weights}.get(_from_layer(name))
        if counterpart is not None and counterpart != name:
            return f"other names: the adapter has '{file_name(name)}' where the base has '{file_name(counterpart)}'"
        depth = _depth(self.unexpected)
        if depth > self.depth and all(_layer_of(name) >= self.depth for name in self.unexpected):
            return f"the adapter has {_layers(depth)}, the base {self.depth}"
        return (
            f"the base has no place for '{file_name(name)}' and {len(self.unexpected) - 1} more, by the layers that "
            f"{ADAPTER_CONFIG} names"
        )

    def _unfilled_reason(self) -> str:
        filled = set(self.weights) - set(self.unfilled)
        name, depth = self.unfilled[0], _depth(filled)
        if depth < self.depth and all(_layer_of(weight) >= depth for weight in self.unfilled):
            return (
                f"the adapter has {_layers(depth)}, the base {self.depth}: {len(self.unfilled)} of the "
                f"{len(self.weights)} weights that its configuration asks for have no tensor"
            )
        other_half = re.sub(r"\.lora_([AB])\.", lambda half: f".lora_{'BA'['AB'.index(half[1])]}.", name)
        half = "the other half of its pair, " if other_half != name and other_half in filled else ""
        return f"the adapter lacks {half}'{file_name(name)}' and {len(self.unfilled) - 1} more of {len(self.weights)}"


def compare(shapes: Mapping[str, Shape], weights: Mapping[str, Shape], result: LoadResult) -> Comparison:
    """Compares an adapter's file with a model after PEFT has loaded one into the other.

    Args:
        shapes: of the file's tensors, by name.
        weights: shapes of the model's parameters, by name, before loading.
        result: of the loading.
    """
    ours = {name: shape for name, shape in weights.items() if is_adapter_weight(name)}
    # the base's own weights: those of another shape are left out, and count neither as missing nor as unexpected
    misshapen = {
        name: (shape, weights[name])
        for name, shape in shapes.items()
        if name in weights and name not in ours and weights[name] != shape
    }
    unfilled = []
    for name in result.missing_keys:
        if name not in ours:
            continue
        spellings = (name, file_name(name), file_name(name).removesuffix(".weight"))
        spelling = next((spelling for spelling in spellings if spelling in shapes), None)
        if spelling is None:
            unfilled.append(name)
        else:
            misshapen[spelling] = (shapes[spelling], ours[name])
    count = Counter(map(file_name, shapes))
    return Comparison(
        tensors=len(shapes),
        unexpected=tuple(result.unexpected_keys),
        twice=tuple(name for name, times in sorted(count.items()) for _ in range(times - 1)),
        misshapen=misshapen,
        unfilled=tuple(unfilled),
        weights=tuple(ours),
        depth=_depth(weights),
    )


def is_adapter_weight(name: str) -> bool:
    """Whether a parameter's name is that of an adapter's weight, not of the base's."""
    parts = name.split(".")
    return ADAPTER_NAME in parts and any(
        part.startswith(("lora_", "modules_to_save", "trainable_tokens_")) for part in parts
    )


def file_name(name: str) -> str:
    """A weight's name as in files: without the adapter's name and the modules around a trained copy."""
    for part in (f".{ADAPTER_NAME}", ".modules_to_save", ".token_adapter"):
        name = f"{name}.".replace(f"{part}.", ".").removesuffix(".")
    return name


def _layers(count: int) -> str:
    return f"{count} layer" if count == 1 else f"{count} layers"


def _layer_of(name: str) -> int:
    """The number of the layer that a weight belongs to; -1 for none."""
    match = LAYER_NUMBER.search(name)
    return -1 if match is None else int(match[1])


def _depth(names: Iterable[str]) -> int:
    return max(map(_layer_of, names), default=-1) + 1


def _from_layer(name: str) -> str:
    """The part from the layer's number on, as in files: equal for two names with different prefixes."""
    match = LAYER_NUMBER.search(name)
    return file_name(name if match is None else name[match.start(1) :])
