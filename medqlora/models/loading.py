"""Loads a base's weights with transformers, and checks that they are complete and finite."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pickle import UnpicklingError
from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from medqlora.compat.transformers import has_loaded_adapter
from medqlora.errors import InputError
from medqlora.models import hub
from medqlora.models.finite import check_finite, watched_quantization
from medqlora.models.layers import LAYER_NUMBER
from medqlora.models.quantization import matrix_shape, quant_state
from medqlora.utils.progress import phase

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: a subfolder that no model has: transformers looks there for an adapter to load by itself
_NO_ADAPTER = {"subfolder": "no-adapter-is-loaded-unasked"}


def load_bare(
    base: str, revision: str | None, *, auto_class: str = "AutoModelForCausalLM", **options: object
) -> "PreTrainedModel":
    """The base's language model, without adapters.

    By itself transformers adds an adapter that it finds in the base's folder or repository (`adapter_config.json`),
    and initialises weights that the files lack at random. Here neither happens.

    Args:
        base: a folder or a name on the Hub.
        revision: on the Hub.
        auto_class: the class of transformers that makes the model.
        options: further arguments of transformers' `from_pretrained`.

    Raises:
        InputError: a file is missing, damaged or of another shape; a weight is missing, or holds NaN or infinity.
    """
    # a download has the Hub's bars, which tell more
    quiet = no_bars() if hub.is_local(base) else nullcontext()
    with _reports_held_back(), quiet, phase("Loading the base model"):
        return _load(base, revision, auto_class, options)


@contextmanager
def no_bars() -> Iterator[None]:
    """A block without transformers' own bars, which would be drawn over the line of this project's progress."""
    from transformers.utils import logging as bars

    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            bars.enable_progress_bar()


@contextmanager
def _reports_held_back() -> Iterator[None]:
    """Holds back transformers' table of differences between files and model; an InputError replaces it."""
    logger = logging.getLogger("transformers.modeling_utils")
    records: list[logging.LogRecord] = []

    def hold(record: logging.LogRecord) -> bool:
        records.append(record)
        return False

    logger.addFilter(hold)
    try:
        yield
    except InputError:
        records.clear()
        raise
    finally:
        logger.removeFilter(hold)
        for record in records:
            logger.handle(record)


def _load(base: str, revision: str | None, auto_class: str, options: dict[str, object]) -> "PreTrainedModel":
    import transformers
    from safetensors import SafetensorError

    files = hub.check_files(base)
    config = hub.changed_config(base, revision)
    if config is not None:
        options.setdefault("config", config)
    try:
        with watched_quantization() as damaged:
            loaded = getattr(transformers, auto_class).from_pretrained(
                hub.resolve(base),
                revision=revision,
                adapter_kwargs=dict(_NO_ADAPTER),
                output_loading_info=True,
                **options,
            )
    except torch.OutOfMemoryError:
        raise
    except (OSError, SafetensorError, RuntimeError, UnpicklingError, EOFError) as error:
        reason = _refusal(error)
        if reason is None:
            raise
        raise InputError(
            f"--model.backend.base: the weights of '{base}' can't be loaded ({reason})"
        ) from error
    # with output_loading_info it is a pair
    model, report = cast("tuple[PreTrainedModel, dict[str, set[str]]]", loaded)
    _check_bare(model, base)
    missing = sorted(report["missing_keys"])
    if missing:
        raise InputError(
            f"--model.backend.base: the weight files of '{base}' lack {len(missing)} of the model's weights, the first "
            f"'{missing[0]}': they are of another model than its config.json, or of a part of it"
        )
    _check_unused(model, sorted(report["unexpected_keys"]), base)
    _check_quantized_shapes(model, base)
    check_finite(model, damaged, base, files)
    return model


def _check_unused(model: "PreTrainedModel", unused: list[str], base: str) -> None:
    """Refuses files with more decoder layers than the model, or with LoRA weights: they are another model's.

    transformers only warns of weights that it doesn't use. Layers that predict further tokens
    (`num_nextn_predict_layers`), a vision tower and the like are left out on purpose.
    """
    lora = [name for name in unused if ".lora_" in name or ".base_layer." in name]
    if lora:
        raise InputError(
            f"--model.backend.base: the weight files of '{base}' hold LoRA weights beside the base's ({len(lora)}, the "
            f"first '{lora[0]}'), which would be left out: merge them (PEFT's merge_and_unload) and save it again, or "
            "give base and adapter apart"
        )
    packed = [name for name in unused if name.endswith(".qweight")]
    if packed:
        raise InputError(
            f"--model.backend.base: the weight files of '{base}' hold {len(packed)} packed weights that are no linear "
            f"layer of this model, the first '{packed[0]}': take its 16-bit version with --model.backend.quantization "
            "nf4"
        )
    config = model.config.get_text_config()
    depth = getattr(config, "num_hidden_layers", None)
    if not isinstance(depth, int) or getattr(config, "num_nextn_predict_layers", None):
        return
    names = {name for name, _ in model.named_parameters()}
    more = [
        name
        for name in unused
        if (match := LAYER_NUMBER.search(name)) is not None
        and int(match[1]) >= depth
        and f"{name[: match.start(1)]}0{name[match.end(1) :]}" in names
    ]
    if more:
        raise InputError(
            f"--model.backend.base: config.json of '{base}' has num_hidden_layers {depth}, and its weight files hold "
            f"more, as '{more[-1]}', which would be left out: {_FROM_ONE_MODEL}"
        )


def _check_quantized_shapes(model: nn.Module, base: str) -> None:
    """Compares the shapes of weights that are quantized while they are loaded, which transformers doesn't."""
    for name, layer in model.named_modules():
        if not isinstance(layer, nn.Linear) or layer.weight is None:
            continue
        unpacked = quant_state(layer.weight) is None and type(layer.weight) is nn.Parameter
        if unpacked and type(layer).__name__ == "Linear4bit":
            raise InputError(
                f"--model.backend.base: config.json of '{base}' says that its weights are quantized by bitsandbytes, "
                f"and '{name}.weight' is not: {_FROM_ONE_MODEL}"
            )
        shape, expected = tuple(matrix_shape(layer.weight)), (layer.out_features, layer.in_features)
        if shape != expected:
            raise InputError(
                f"--model.backend.base: the weights of '{base}' can't be loaded: '{name}.weight' is {list(shape)}, and "
                f"config.json says {list(expected)}: {_FROM_ONE_MODEL}"
            )


_FROM_ONE_MODEL = "copy or download both again, from one model"


def _check_bare(model: "PreTrainedModel", base: str) -> None:
    """Another version of transformers may look for adapters elsewhere."""
    if has_loaded_adapter(model):
        raise InputError(
            f"--model.backend.base: transformers has put the adapter in '{base}' on it: move adapter_config.json and "
            "adapter_model.safetensors out of that folder"
        )


def _refusal(error: Exception) -> str | None:
    """The fault of the files, and the fix; None where the error has another cause."""
    from safetensors import SafetensorError

    text = " ".join(str(error).split())
    if "mismatch" in text.lower():
        return f"other shapes than config.json says: {_FROM_ONE_MODEL}"
    if isinstance(error, (UnpicklingError, EOFError)) or "PytorchStreamReader" in text:
        # torch's own message advises to read the file with weights_only=False, which runs what it holds
        what = "a .bin file is damaged, or holds more than tensors, which is never run"
        return f"{what}: download the base as safetensors"
    if isinstance(error, SafetensorError) or (isinstance(error, OSError) and error.errno is None):
        return f"{text[:200].rstrip('.: ')}: copy or download the base again"
    return None
