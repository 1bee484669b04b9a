"""Which layers get an adapter: from an option's words to names that PEFT takes."""

import re
from collections.abc import Collection, Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple

from medqlora.config.lora import ALL_LINEAR, split_names
from medqlora.errors import InputError
from medqlora.models.layers import (
    base_model,
    cross_attention,
    experts,
    inside_layer,
    linear_layers,
    raw_weights,
)

#: what Llama, Mistral, Qwen and Gemma call the linear layers of a decoder block
SEVEN_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
#: what the experts' own layers were called before transformers 5 put them into one parameter; people still say so
_EXPERT_NAMES = {
    "gate_up_proj": ("gate_proj", "up_proj", "w1", "w3"),
    "down_proj": ("w2",),
}
#: a layer's name or the end of one, not a regular expression
_OPTION = "--model.lora.target_modules"


class Targets(NamedTuple):
    """What PEFT's LoraConfig is told.

    Attributes:
        modules: its `target_modules`: last parts of names, or full names where a last part says too much.
        parameters: its `target_parameters`: the experts of a mixture, by the end of their names.
    """

    modules: list[str]
    parameters: list[str]


def find_targets(model: Any, given: str | Sequence[str] | None) -> Targets:
    """The layers of `model` that get an adapter.

    Args:
        model: a transformers model, on the meta device or loaded.
        given: the option's value; None chooses every linear layer of the decoder layers, which are the seven
            projections of a Llama-like model, and the experts of a mixture, but not what chooses between experts.

    Raises:
        InputError: a name that no layer bears (names the nearest), or a model without linear layers in its blocks.
    """
    linear = _adaptable(model)
    grouped = _expert_names(model)
    if not linear and not grouped:
        raise InputError(
            f"--model.backend.base: {type(model).__name__} has no linear layers that an adapter could go on: "
            "use a Llama-like base"
        )
    wanted = None if given is None else split_names(given)
    if wanted is None or wanted == ALL_LINEAR:
        routers = set() if wanted == ALL_LINEAR else {name for name in linear if _routes(name)}
        modules = peft_names(model, [name for name in linear if name not in routers])
        return Targets(modules, _expert_ends(grouped, {*grouped}))
    if isinstance(wanted, str):
        return _by_expression(model, linear, grouped, wanted)
    chosen: list[str] = []
    parameters: set[str] = set()
    for name in wanted:
        bare = name.removeprefix("base_model.model.")
        modules = [one for one in linear if _ends(one, bare)]
        held = {one for one, known in grouped.items() if any(_ends(old, bare) for old in known)}
        if not modules and not held:
            raise InputError(_unknown(name, {_leaf(one) for one in [*linear, *grouped]}))
        chosen += modules
        parameters |= held
    exact = [name for name in wanted if not any(_ends(one, name) for one in linear)]
    modules = list(wanted) if not exact and _selects(model, wanted, chosen) else peft_names(model, chosen)
    return Targets(modules, _expert_ends(grouped, parameters))


def projections(given: str | Sequence[str] | None) -> list[str] | None:
    """Which of a Llama-like block's seven projections the option's value names; None for all of them."""
    wanted = None if given is None else split_names(given)
    if wanted is None or wanted == ALL_LINEAR:
        return None
    if isinstance(wanted, str):
        pattern = re.compile(wanted)
        return [
            name
            for name in SEVEN_PROJECTIONS
            if any(pattern.fullmatch(f"model.layers.0.{part}.{name}") for part in ("self_attn", "mlp"))
        ]
    return [name for name in SEVEN_PROJECTIONS if name in map(_leaf, wanted)]


def peft_names(model: Any, chosen: Sequence[str]) -> list[str]:
    """Names by which PEFT finds the modules `chosen` and no other: their last parts, where those are enough."""
    leaves = {_leaf(name) for name in chosen}
    short = list(SEVEN_PROJECTIONS) if leaves == set(SEVEN_PROJECTIONS) else sorted(leaves)
    return short if _selects(model, short, chosen) else sorted(set(chosen))


def _selects(model: Any, names: Sequence[str], chosen: Sequence[str]) -> bool:
    """Whether PEFT, given `names`, takes the modules `chosen` alone: it matches ends of names in the whole model."""
    found = {one for one, _ in base_model(model).named_modules() if any(_ends(one, name) for name in names)}
    return found == set(chosen)


def _by_expression(
    model: Any, linear: Collection[str], grouped: dict[str, list[str]], expression: str
) -> Targets:
    """The layers whose full name a regular expression matches from its beginning to its end, as PEFT reads it."""
    try:
        pattern = re.compile(expression)
    except re.error as error:
        raise InputError(
            f"{_OPTION} {expression!r}: not a regular expression ({error}): give names as in q_proj,v_proj, "
            f"or {ALL_LINEAR}"
        ) from error
    chosen = [name for name in linear if pattern.fullmatch(name)]
    parameters = {one for one, known in grouped.items() if any(map(pattern.fullmatch, known))}
    if not chosen and not parameters:
        example = next(iter([*linear, *grouped]))
        raise InputError(
            f"{_OPTION} {expression!r}: this regular expression matches no layer's full name, as "
            f"'{example}' is one: begin it with .* to match the end of a name"
        )
    return Targets(peft_names(model, chosen), _expert_ends(grouped, parameters))


def _adaptable(model: Any) -> list[str]:
    """Full names of the linear layers that PEFT can put an adapter on, where they take effect."""
    base = base_model(model)
    left = {*raw_weights(base), *cross_attention(base)}
    renamed = _renamed_by_peft(base)
    return [name for name in linear_layers(base) if name not in left and _leaf(name) not in renamed]


def _expert_names(model: Any) -> dict[str, list[str]]:
    """An expert parameter's full name → full names that it goes by, old names included."""
    found: dict[str, list[str]] = {}
    for expert in experts(model):
        if expert.parameter.ndim != 3:
            continue  # DBRX reads its matrices from outside their module, where PEFT's wrapper hides them
        parent, _, leaf = expert.name.rpartition(".")
        names = [expert.name, *(f"{parent}.{old}" for old in _EXPERT_NAMES.get(leaf, ()))]
        if leaf == "weight":  # Granite's, a module of its own
            names.append(parent)
        found[expert.name] = names
    return found


def _expert_ends(grouped: Collection[str], chosen: Collection[str]) -> list[str]:
    """Names by which PEFT finds the parameters `chosen` of all in `grouped`: their ends where every layer's are."""
    ends: dict[str, list[str]] = {}
    for name in grouped:
        ends.setdefault(inside_layer(name), []).append(name)
    found: list[str] = []
    for end, names in ends.items():
        wanted = [name for name in names if name in chosen]
        found += [end] if len(wanted) == len(names) else wanted
    return sorted(found)


def _renamed_by_peft(model: Any) -> frozenset[str]:
    """Names that PEFT 0.21 takes for the experts' of transformers 4, whatever layer bears them.

    It rewrites a configuration that targets them: the linear layers of that name, as a shared expert has, would be
    left without an adapter, and the experts get one of twice the rank.
    """
    try:
        from peft.utils import transformers_weight_conversion as conversion
    except ImportError:
        return frozenset()
    kind = getattr(conversion, "_MODEL_TO_CONVERSION_PATTERN", {}).get(
        getattr(getattr(model, "config", None), "model_type", None)
    )
    fused = getattr(conversion, "_MOE_FUSED_TARGETS", {})
    return frozenset(
        getattr(conversion, "_MOE_TARGET_MODULE_MAPPING", {}).get(kind, ()) if kind in fused else ()
    )


def _routes(name: str) -> bool:
    """Whether a linear layer chooses between experts: trained, it would send tokens to other ones."""
    return any(part.endswith("router") or part in ("gate", "shared_expert_gate") for part in name.split("."))


def _unknown(name: str, leaves: Collection[str]) -> str:
    near = get_close_matches(_leaf(name), [*leaves, ALL_LINEAR], 1)
    hint = f"; did you mean '{near[0]}'?" if near else "."
    return f"{_OPTION}: the model has no linear layer '{name}'{hint} It has {', '.join(sorted(leaves))}"


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]


def _ends(full: str, name: str) -> bool:
    """Whether a full name is `name` or ends with it, at a dot."""
    return full == name or full.endswith(f".{name}")
