"""The check that an adapter fits a model: each tensor fits one weight, with its shape, and no weight lacks one.

PEFT loads what matches and only warns of the rest: an adapter of another depth, or with other names, would be
evaluated as if it were there. The check runs PEFT's own loading on the meta device, with the shapes of the file's
header alone. So it follows every renaming of PEFT's, and nothing is read or allocated.
"""

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from medqlora.errors import InputError
from medqlora.models.adapters.comparison import (
    ADAPTER_NAME,
    Comparison,
    Shape,
    compare,
    file_name,
    is_adapter_weight,
)
from medqlora.models.finite import is_finite
from medqlora.models.weight_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS, named_base, read_header

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def check_fit(folder: str, model: "PreTrainedModel", base: str, option: str = "--model.adapter") -> None:
    """Raises InputError when the adapter doesn't fit the base, tensor by tensor.

    Args:
        folder: the adapter's; `read_adapter` has checked it.
        model: the base on the meta device; the adapter's layers are added to it.
        base: its name, for the message.
        option: the option that named the adapter, for messages.
    """
    shapes = _file_shapes(folder, option)
    try:
        with _refusals(folder, base, option, len(shapes)):
            comparison = _compare_on_meta(folder, model, shapes)
    except (
        RuntimeError
    ):  # a conversion of PEFT's fails on the meta device: `load_adapter` checks it with the weights
        return
    _refuse_misfit(comparison, folder, base, option)


def load_adapter(
    model: "PreTrainedModel",
    folder: str,
    base: str,
    *,
    trainable: bool = False,
    option: str = "--model.adapter",
) -> "PeftModel":
    """`model` with the adapter's layers and weights, as from `PeftModel.from_pretrained`.

    Args:
        model: the base with its weights.
        folder: the adapter's; `read_adapter` has checked it.
        base: the base's name, for messages.
        trainable: whether the adapter's weights require gradients.
        option: the option that named the adapter, for messages.

    Raises:
        InputError: a tensor of the adapter doesn't fit, or holds NaN or infinity.
    """
    shapes = _file_shapes(folder, option)
    with _refusals(folder, base, option, len(shapes)), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of different shapes, which are compared below
        wrapped = _with_layers(model, folder, trainable=trainable)
        weights = _shapes(wrapped)
        own = {
            name: value.detach().clone()
            for name, value in wrapped.named_parameters()
            if name in shapes and not is_adapter_weight(name)
        }
        result = wrapped.load_adapter(
            folder, ADAPTER_NAME, is_trainable=trainable, ignore_mismatched_sizes=True
        )
    _refuse_misfit(compare(shapes, weights, result), folder, base, option)
    loaded = dict(wrapped.named_parameters())
    damaged = sorted(
        file_name(name) for name, value in loaded.items() if is_adapter_weight(name) and not is_finite(value)
    )
    if damaged:
        raise InputError(
            f"{option}: '{folder}': the tensor '{damaged[0]}' holds NaN or infinite values, and {len(damaged) - 1} "
            "more do: the training had failed; use another checkpoint's adapter"
        )
    replaced = {name: value for name, value in own.items() if not torch.equal(value, loaded[name])}
    if replaced:
        _restore_when_disabled(wrapped, replaced)
    return wrapped


def _restore_when_disabled(model: "PeftModel", own: Mapping[str, Tensor]) -> None:
    """Makes PEFT's `disable_adapter` also restore the base's own weights while it is entered.

    An adapter's file may hold weights of the base (trained biases, a complete embedding). PEFT leaves them in place
    when the adapter is disabled, and `test` would compare with a changed base.

    Args:
        model: PEFT's.
        own: name → the base's own value of each weight that the adapter has replaced.
    """
    peft_disable = model.disable_adapter

    def exchange() -> None:
        for name, other in own.items():
            current = model.get_parameter(name).data
            before = current.clone()
            current.copy_(other)
            other.copy_(before)

    @contextmanager
    def disabled() -> Iterator[None]:
        with ExitStack() as stack:
            with warnings.catch_warnings():  # PEFT warns of the problem that `exchange` solves
                warnings.filterwarnings("ignore", message="Careful, disabling adapter layers with bias")
                stack.enter_context(peft_disable())
            exchange()
            stack.callback(exchange)
            yield

    model.disable_adapter = disabled  # type: ignore[method-assign]


def _refuse_misfit(comparison: Comparison, folder: str, base: str, option: str) -> None:
    if not comparison.fits:
        reason = comparison.reason()
        raise _misfit(folder, base, option, comparison.fitting, comparison.tensors, reason)


def _file_shapes(folder: str, option: str) -> dict[str, Shape]:
    header = read_header(Path(folder) / ADAPTER_WEIGHTS, option)
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
        reason = f"{ADAPTER_WEIGHTS} has no tensor {error.args[0]!r}, which {ADAPTER_CONFIG} says was trained"
        raise _misfit(folder, base, option, 0, tensors, reason) from error
    except RuntimeError as error:  # PEFT joins single experts: one lacks a tensor, or has another shape
        if not re.search(r"sizes of tensors must match|size mismatch", str(error), re.IGNORECASE):
            raise
        reason = f"its experts' tensors can't be joined ({_one_line(error)})"
        raise _misfit(folder, base, option, 0, tensors, reason) from error
    # a configuration for other layers than the model has, or for a feature that this PEFT lacks
    except (ValueError, TypeError, AttributeError, ImportError) as error:
        raise _misfit(folder, base, option, 0, tensors, _one_line(error)) from error


def _misfit(folder: str, base: str, option: str, fitting: int, tensors: int, reason: str) -> InputError:
    named = named_base(Path(folder), option)
    of = f" ('{named}' in {ADAPTER_CONFIG})" if named else ""
    return InputError(
        f"{option}: {fitting} of the {tensors} tensors of '{folder}' fit the base '{base}': {reason}: pass the base "
        f"that the adapter was trained on{of}, or another adapter"
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300].rstrip(":. ")


def _compare_on_meta(folder: str, model: "PreTrainedModel", shapes: Mapping[str, Shape]) -> Comparison:
    from peft import set_peft_model_state_dict

    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")  # of different shapes, which are compared below
        wrapped = _with_layers(model, folder, trainable=False, low_cpu_mem_usage=True)
        weights = _shapes(wrapped)
        result = set_peft_model_state_dict(
            wrapped,
            {name: torch.empty(shape) for name, shape in shapes.items()},
            adapter_name=ADAPTER_NAME,
            ignore_mismatched_sizes=True,
            low_cpu_mem_usage=True,
        )
    return compare(shapes, weights, result)


def _with_layers(
    model: "PreTrainedModel", folder: str, *, trainable: bool, low_cpu_mem_usage: bool = False
) -> "PeftModel":
    """`model` as PEFT's model with the adapter's layers, before their weights are loaded.

    It is the first step of `PeftModel.from_pretrained`, apart from the second, whose result is needed.
    """
    from peft import MODEL_TYPE_TO_PEFT_MODEL_MAPPING, LoraConfig, PeftModel

    config = LoraConfig.from_pretrained(folder)
    config.inference_mode = not trainable
    if not trainable:
        config.lora_dropout = 0.0  # has no effect outside training, and PEFT refuses it for experts
    kind = MODEL_TYPE_TO_PEFT_MODEL_MAPPING.get(config.task_type or "", PeftModel)
    return kind(model, config, ADAPTER_NAME, low_cpu_mem_usage=low_cpu_mem_usage)


def _shapes(model: nn.Module) -> dict[str, Shape]:
    """Name → shape of every parameter; a shared one counts once, under its first name."""
    return {name: tuple(value.shape) for name, value in model.named_parameters()}
