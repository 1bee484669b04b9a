"""Whether an adapter fits a model: each of its tensors lands once, with its shape, and none of the model's is left.

PEFT loads what matches and warns of the rest. An adapter of another depth, or with other names, would be tested
as if it were there. PEFT's own loading is run here on the meta device, with the shapes of the file's header alone,
so that every renaming that it does counts, and nothing is read or allocated.
"""

import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from medqlora.errors import InputError
from medqlora.models.finite import is_finite
from medqlora.models.weight_files import ADAPTER_CONFIG, read_header, read_object

_WEIGHTS = "adapter_model.safetensors"
#: PEFT's name of the one adapter; it stands in the model's names and usually not in the file's
_NAME = "default"
_LAYER = re.compile(r"\.(?:layers|h|blocks|layer)\.(\d+)\.")

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Landing:
    """Where an adapter's tensors go in a model.

    Attributes:
        tensors: how many the file holds.
        unexpected: names that the model has no place for.
        twice: names in the file that stand for the same place as another's.
        misshapen: name → (the file's shape, the model's).
        unfilled: names of the model's adapter weights that the file has no tensor for.
        places: names of all of the model's adapter weights.
        depth: how many layers the model has, as its names count them.
    """

    tensors: int
    unexpected: tuple[str, ...]
    twice: tuple[str, ...]
    misshapen: Mapping[str, tuple[Shape, Shape]]
    unfilled: tuple[str, ...]
    places: tuple[str, ...]
    depth: int

    @property
    def fits(self) -> bool:
        return not (self.unexpected or self.twice or self.misshapen or self.unfilled)

    @property
    def landed(self) -> int:
        """How many of the file's tensors have a place of their shape."""
        return max(0, self.tensors - len(self.unexpected) - len(self.twice) - len(self.misshapen))


def check_fit(folder: str, model: nn.Module, base: str, option: str = "--model.adapter") -> None:
    """Raises InputError when the adapter doesn't fit the base, tensor by tensor.

    Args:
        folder: the adapter's, which `read_adapter` has checked.
        model: the base on the meta device; gets the adapter's layers.
        base: its name, for the message.
        option: what named the adapter, for messages.
    """
    shapes = _file_shapes(folder, option)
    try:
        with _refusals(folder, base, option, len(shapes)):
            landing = _land(folder, model, shapes)
    except (
        RuntimeError
    ):  # a conversion of PEFT's that the meta device can't do: `put_on` checks it with the weights
        return
    _refuse_misfit(landing, folder, base, option)


def put_on(
    model: nn.Module, folder: str, base: str, *, trainable: bool = False, option: str = "--model.adapter"
) -> Any:
    """`model` with the adapter's layers and weights, as `PeftModel.from_pretrained` gives it; a PEFT model.

    Args:
        model: the base, its weights loaded.
        folder: the adapter's, which `read_adapter` has checked.
        base: the base's name, for messages.
        trainable: whether the adapter's weights require gradients.
        option: what named the adapter, for messages.

    Raises:
        InputError: a tensor of the adapter's doesn't land, or holds NaN or infinity.
    """
    shapes = _file_shapes(folder, option)
    with _refusals(folder, base, option, len(shapes)), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of shapes that differ, which are compared below
        wrapped = wrap(model, folder, trainable=trainable)
        places = weight_shapes(wrapped)
        own = {
            name: value.detach().clone()
            for name, value in wrapped.named_parameters()
            if name in shapes and not _is_adapters(name)
        }
        result = wrapped.load_adapter(folder, _NAME, is_trainable=trainable, ignore_mismatched_sizes=True)
    _refuse_misfit(_landing(shapes, places, result), folder, base, option)
    ours = {name: value for name, value in wrapped.named_parameters() if _is_adapters(name)}
    damaged = sorted(_plain(name) for name, value in ours.items() if not is_finite(value))
    if damaged:
        raise InputError(
            f"{option}: '{folder}': the tensor '{damaged[0]}' holds NaN or infinite values, and {len(damaged) - 1} "
            "more do: the training had failed; use another checkpoint's adapter"
        )
    loaded = dict(wrapped.named_parameters())
    _restored_when_disabled(
        wrapped, {name: value for name, value in own.items() if not torch.equal(value, loaded[name])}
    )
    return wrapped


def _restored_when_disabled(model: Any, own: Mapping[str, Tensor]) -> None:
    """Gives the base its own weights back while PEFT's `disable_adapter` is entered.

    An adapter's file may hold weights of the base (trained biases, a whole embedding), which stay when the adapter is
    switched off: the base that `test` compares with would not be bare.

    Args:
        model: PEFT's.
        own: name → the base's own value of each weight that the adapter has replaced.
    """
    peft_disabled = model.disable_adapter

    def exchange() -> None:
        for name in own:
            held = model.get_parameter(name).data
            replaced = held.clone()
            held.copy_(own[name])
            own[name].copy_(replaced)

    @contextmanager
    def disabled() -> Iterator[None]:
        with ExitStack() as stack:
            with warnings.catch_warnings():  # PEFT warns of what is done next
                warnings.filterwarnings("ignore", message="Careful, disabling adapter layers with bias")
                stack.enter_context(peft_disabled())
            exchange()
            stack.callback(exchange)
            yield

    if own:
        model.disable_adapter = disabled


def _refuse_misfit(landing: Landing, folder: str, base: str, option: str) -> None:
    if not landing.fits:
        raise _misfit(folder, base, option, landing.landed, landing.tensors, _reason(landing))


def _file_shapes(folder: str, option: str) -> dict[str, Shape]:
    header = read_header(Path(folder) / _WEIGHTS, option)
    for name, entry in header.items():
        kind = str(entry["dtype"])
        if "F" not in kind:  # F32, BF16, F8_E4M3; PEFT would copy integers as weights
            raise InputError(
                f"{option}: '{folder}': the tensor '{name}' is of type {kind}, no floating-point type: give the "
                "adapter as it was trained, not a quantized copy"
            )
    return {name: tuple(entry["shape"]) for name, entry in header.items()}


@contextmanager
def _refusals(folder: str, base: str, option: str, tensors: int) -> Iterator[None]:
    """Turns PEFT's refusals into one line."""
    try:
        yield
    except KeyError as error:  # of modules_to_save and trainable_token_indices
        why = f"{_WEIGHTS} has no tensor {error.args[0]!r}, which {ADAPTER_CONFIG} says was trained"
        raise _misfit(folder, base, option, 0, tensors, why) from error
    except (
        RuntimeError
    ) as error:  # of experts one by one, which are joined: one lacks a tensor, or has another shape
        if not re.search(r"sizes of tensors must match|size mismatch", str(error), re.IGNORECASE):
            raise
        why = f"its experts' tensors can't be joined ({_one_line(error)})"
        raise _misfit(folder, base, option, 0, tensors, why) from error
    # a configuration for other layers than the model has, or for what this PEFT lacks
    except (ValueError, TypeError, AttributeError, ImportError) as error:
        raise _misfit(folder, base, option, 0, tensors, _one_line(error)) from error


def _misfit(folder: str, base: str, option: str, landed: int, tensors: int, reason: str) -> InputError:
    named = read_object(Path(folder) / ADAPTER_CONFIG, option).get("base_model_name_or_path")
    of = f" ('{named}' in {ADAPTER_CONFIG})" if named else ""
    return InputError(
        f"{option}: {landed} of the {tensors} tensors of '{folder}' fit the base '{base}': {reason}: pass the base "
        f"that the adapter was trained on{of}, or another adapter"
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300].rstrip(":. ")


def _land(folder: str, model: nn.Module, shapes: Mapping[str, Shape]) -> Landing:
    from peft import set_peft_model_state_dict

    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")  # of shapes that differ, which are compared below
        wrapped = wrap(model, folder, trainable=False, low_cpu_mem_usage=True)
        places = weight_shapes(wrapped)
        result: Any = set_peft_model_state_dict(
            wrapped,
            {name: torch.empty(shape) for name, shape in shapes.items()},
            adapter_name=_NAME,
            ignore_mismatched_sizes=True,
            low_cpu_mem_usage=True,
        )
    return _landing(shapes, places, result)


def wrap(model: nn.Module, folder: str, *, trainable: bool, low_cpu_mem_usage: bool = False) -> Any:
    """`model` as PEFT's model with the adapter's layers, whose weights aren't loaded yet.

    What `PeftModel.from_pretrained` does first; apart, so that the result of the second step can be looked at.
    """
    from peft import MODEL_TYPE_TO_PEFT_MODEL_MAPPING, LoraConfig, PeftModel

    config = LoraConfig.from_pretrained(folder)
    config.inference_mode = not trainable
    if not trainable:
        config.lora_dropout = 0.0  # has no effect outside training, and PEFT refuses it for experts
    kind = MODEL_TYPE_TO_PEFT_MODEL_MAPPING.get(config.task_type or "", PeftModel)
    return kind(model, config, _NAME, low_cpu_mem_usage=low_cpu_mem_usage)


def weight_shapes(model: nn.Module) -> dict[str, Shape]:
    """Name → shape of every parameter of a PEFT model; one that is shared counts once, under its first name."""
    return {name: tuple(value.shape) for name, value in model.named_parameters()}


def _landing(shapes: Mapping[str, Shape], places: Mapping[str, Shape], result: Any) -> Landing:
    """What PEFT's loading came to.

    Args:
        shapes: of the file's tensors, by name.
        places: of the model's parameters, by name, before it was loaded.
        result: PyTorch's, with `unexpected_keys` and `missing_keys`; a misshapen tensor counts as missing.
    """
    ours = {name: shape for name, shape in places.items() if _is_adapters(name)}
    # the base's own weights: of another shape they are left out, neither missing nor unexpected
    misshapen = {
        name: (shape, places[name])
        for name, shape in shapes.items()
        if name in places and name not in ours and places[name] != shape
    }
    unfilled = []
    for name in result.missing_keys:
        if name not in ours:
            continue
        spellings = (name, _plain(name), _plain(name).removesuffix(".weight"))
        given = next((one for one in spellings if one in shapes), None)
        if given is None:
            unfilled.append(name)
        else:
            misshapen[given] = (shapes[given], ours[name])
    count = Counter(map(_plain, shapes))
    return Landing(
        tensors=len(shapes),
        unexpected=tuple(result.unexpected_keys),
        twice=tuple(name for name, times in sorted(count.items()) for _ in range(times - 1)),
        misshapen=misshapen,
        unfilled=tuple(unfilled),
        places=tuple(ours),
        depth=_depth(places),
    )


def _is_adapters(name: str) -> bool:
    """Whether a name of the model's is one of the adapter's weights, and not of the base."""
    parts = name.split(".")
    return _NAME in parts and any(
        part.startswith(("lora_", "modules_to_save", "trainable_tokens_")) for part in parts
    )


def _plain(name: str) -> str:
    """A weight's name as files have it: without the adapter's name and the modules around a trained copy."""
    for part in (f".{_NAME}", ".modules_to_save", ".token_adapter"):
        name = f"{name}.".replace(f"{part}.", ".").removesuffix(".")
    return name


def _reason(landing: Landing) -> str:
    """Why the tensors don't fit, in a few words."""
    if landing.misshapen:
        name, (theirs, ours) = next(iter(sorted(landing.misshapen.items())))
        return f"other shapes: '{name}' is {list(theirs)} in the adapter, {list(ours)} in the base"
    if landing.twice:
        return f"'{landing.twice[0]}' stands twice in the adapter"
    if landing.unexpected:
        return _reason_unexpected(landing, _depth(landing.unexpected), landing.depth)
    return _reason_unfilled(landing)


def _reason_unexpected(landing: Landing, theirs: int, ours: int) -> str:
    name = landing.unexpected[0]
    counterparts = {_end(one): one for one in landing.places}
    twin = counterparts.get(_end(name))
    if twin is not None and twin != name:
        return f"other names: the adapter has '{_plain(name)}' where the base has '{_plain(twin)}'"
    if theirs > ours and all(_number(one) >= ours for one in landing.unexpected):
        return f"the adapter has {_layers(theirs)}, the base {ours}"
    return (
        f"the base has no place for '{_plain(name)}' and {len(landing.unexpected) - 1} more, by the layers that "
        f"{ADAPTER_CONFIG} names"
    )


def _reason_unfilled(landing: Landing) -> str:
    filled = set(landing.places) - set(landing.unfilled)
    name = landing.unfilled[0]
    depth, ours = _depth(filled), landing.depth
    if depth < ours and all(_number(one) >= depth for one in landing.unfilled):
        return (
            f"the adapter has {_layers(depth)}, the base {ours}: {len(landing.unfilled)} of the {len(landing.places)} "
            "weights that its configuration asks for have no tensor"
        )
    halves = {one.replace(".lora_B.", ".lora_A.") for one in filled} | {
        one.replace(".lora_A.", ".lora_B.") for one in filled
    }
    what = "the other half of its pair, " if name in halves else ""
    return f"the adapter lacks {what}'{_plain(name)}' and {len(landing.unfilled) - 1} more of {len(landing.places)}"


def _layers(count: int) -> str:
    return f"{count} layer" if count == 1 else f"{count} layers"


def _number(name: str) -> int:
    """Of the layer that a weight belongs to; -1 for none."""
    match = _LAYER.search(name)
    return -1 if match is None else int(match[1])


def _depth(names: Iterable[str]) -> int:
    return max(map(_number, names), default=-1) + 1


def _end(name: str) -> str:
    """From the layer's number on, without the adapter's name: what two prefixes have in common."""
    match = _LAYER.search(name)
    return _plain(name if match is None else name[match.start(1) :])
