"""The layers that get an adapter: from `--model.lora.target_modules` to names that PEFT takes."""

import re
from collections.abc import Collection, Sequence
from difflib import get_close_matches
from typing import NamedTuple

from torch import nn

from medqlora.compat.peft import renamed_expert_layers
from medqlora.config.lora import ALL_LINEAR, split_names
from medqlora.errors import InputError
from medqlora.models.layers import (
    base_model,
    cross_attention,
    ends_with,
    experts,
    inside_layer,
    last_part,
    linear_layers,
    raw_weights,
)

#: the linear layers of a decoder block in Llama, Mistral, Qwen and Gemma
SEVEN_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
#: names of the experts' own layers before transformers 5 put them into one parameter; users still write them
_EXPERT_NAMES = {
    "gate_up_proj": ("gate_proj", "up_proj", "w1", "w3"),
    "down_proj": ("w2",),
}
_OPTION = "--model.lora.target_modules"


class Targets(NamedTuple):
    """The names that PEFT's LoraConfig takes.

    Attributes:
        modules: its `target_modules`: last parts of names, or full names where a last part matches other layers too.
        parameters: its `target_parameters`: the experts of a mixture, by the ends of their names.
    """

    modules: list[str]
    parameters: list[str]


def find_targets(model: nn.Module, option: str | Sequence[str] | None) -> Targets:
    """The layers of `model` that get an adapter.

    Args:
        model: a transformers model, on the meta device or loaded.
        option: its value; None chooses every linear layer of the decoder layers, which are the seven
            projections of a Llama-like model, and the experts of a mixture, without the routers.

    Raises:
        InputError: no layer has that name (names the nearest), or the model has no linear layers in its blocks.
    """
    linear = _adaptable(model)
    grouped = _expert_names(model)
    if not linear and not grouped:
        raise InputError(
            f"--model.backend.base: {type(model).__name__} has no linear layers that an adapter could go on: "
            "use a Llama-like base"
        )
    requested = None if option is None else split_names(option)
    if requested is None or requested == ALL_LINEAR:
        routers = set() if requested == ALL_LINEAR else {name for name in linear if _routes(name)}
        modules = peft_names(model, [name for name in linear if name not in routers])
        return Targets(modules, _expert_ends(grouped, {*grouped}))
    if isinstance(requested, str):
        return _by_expression(model, linear, grouped, requested)
    chosen: list[str] = []
    parameters: set[str] = set()
    for name in requested:
        end = name.removeprefix("base_model.model.")
        modules = [full for full in linear if ends_with(full, end)]
        of_experts = {full for full, known in grouped.items() if any(ends_with(old, end) for old in known)}
        if not modules and not of_experts:
            raise InputError(_unknown(name, {*map(last_part, [*linear, *grouped])}))
        chosen += modules
        parameters |= of_experts
    prefixed = any(not any(ends_with(full, name) for full in linear) for name in requested)
    as_requested = not prefixed and _selects(model, requested, chosen)
    modules = list(requested) if as_requested else peft_names(model, chosen)
    return Targets(modules, _expert_ends(grouped, parameters))


def projections(option: str | Sequence[str] | None) -> list[str] | None:
    """Which of a Llama-like block's seven projections the option's value names; None for all of them."""
    requested = None if option is None else split_names(option)
    if requested is None or requested == ALL_LINEAR:
        return None
    if isinstance(requested, str):
        pattern = re.compile(requested)
        return [
            name
            for name in SEVEN_PROJECTIONS
            if any(pattern.fullmatch(f"model.layers.0.{part}.{name}") for part in ("self_attn", "mlp"))
        ]
    return [name for name in SEVEN_PROJECTIONS if name in map(last_part, requested)]


def peft_names(model: nn.Module, chosen: Sequence[str]) -> list[str]:
    """Names by which PEFT selects the modules `chosen` and no other: their last parts where those suffice."""
    leaves = {*map(last_part, chosen)}
    short = list(SEVEN_PROJECTIONS) if leaves == set(SEVEN_PROJECTIONS) else sorted(leaves)
    return short if _selects(model, short, chosen) else sorted(set(chosen))


def _selects(model: nn.Module, names: Sequence[str], chosen: Sequence[str]) -> bool:
    """Whether `names` select the modules `chosen` alone: PEFT matches ends of names in the whole model."""
    every = (name for name, _ in base_model(model).named_modules())
    return {full for full in every if ends_with(full, *names)} == set(chosen)


def _by_expression(
    model: nn.Module, linear: Collection[str], grouped: dict[str, list[str]], expression: str
) -> Targets:
    """The layers whose whole full name matches a regular expression, as PEFT reads it."""
    try:
        pattern = re.compile(expression)
    except re.error as error:
        raise InputError(
            f"{_OPTION} {expression!r}: not a regular expression ({error}): give names as in q_proj,v_proj, "
            f"or {ALL_LINEAR}"
        ) from error
    chosen = [name for name in linear if pattern.fullmatch(name)]
    parameters = {full for full, known in grouped.items() if any(map(pattern.fullmatch, known))}
    if not chosen and not parameters:
        example = next(iter([*linear, *grouped]))
        raise InputError(
            f"{_OPTION} {expression!r}: this regular expression matches no layer's full name, as "
            f"'{example}' is one: begin it with .* to match the end of a name"
        )
    return Targets(peft_names(model, chosen), _expert_ends(grouped, parameters))


def _adaptable(model: nn.Module) -> list[str]:
    """Full names of the linear layers where an adapter of PEFT's takes effect."""
    base = base_model(model)
    excluded = {*raw_weights(base), *cross_attention(base)}
    renamed = renamed_expert_layers(getattr(getattr(base, "config", None), "model_type", None))
    return [name for name in linear_layers(base) if name not in excluded and last_part(name) not in renamed]


def _expert_names(model: nn.Module) -> dict[str, list[str]]:
    """An expert parameter's full name → all full names for it, old ones included."""
    known: dict[str, list[str]] = {}
    for expert in experts(model):
        if expert.parameter.ndim != 3:
            continue  # DBRX reads its matrices from outside their module, where PEFT's wrapper hides them
        parent, _, leaf = expert.name.rpartition(".")
        names = [expert.name, *(f"{parent}.{old}" for old in _EXPERT_NAMES.get(leaf, ()))]
        if leaf == "weight":  # Granite's, a module of its own
            names.append(parent)
        known[expert.name] = names
    return known


def _expert_ends(grouped: Collection[str], chosen: Collection[str]) -> list[str]:
    """Names by which PEFT selects the parameters `chosen` in `grouped`: their ends where every layer's is chosen."""
    ends: dict[str, list[str]] = {}
    for name in grouped:
        ends.setdefault(inside_layer(name), []).append(name)
    selected: list[str] = []
    for end, names in ends.items():
        of_end = [name for name in names if name in chosen]
        selected += [end] if len(of_end) == len(names) else of_end
    return sorted(selected)


def _routes(name: str) -> bool:
    """Whether a linear layer chooses between experts: trained, it would send tokens to other ones."""
    return any(part.endswith("router") or part in ("gate", "shared_expert_gate") for part in name.split("."))


def _unknown(name: str, leaves: Collection[str]) -> str:
    near = get_close_matches(last_part(name), [*leaves, ALL_LINEAR], 1)
    hint = f"; did you mean '{near[0]}'?" if near else "."
    return f"{_OPTION}: the model has no linear layer '{name}'{hint} It has {', '.join(sorted(leaves))}"
