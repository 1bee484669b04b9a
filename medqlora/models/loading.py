"""Loads a base's weights with transformers: the base alone, whole, and finite."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pickle import UnpicklingError
from typing import Any

import torch
from torch import nn

from medqlora.errors import InputError
from medqlora.models import hub
from medqlora.models.finite import check_finite, watched_quantization

#: a subfolder that no model has: where transformers is to look for an adapter to put on unasked
_NO_ADAPTER = {"subfolder": "no-adapter-is-loaded-unasked"}


def load_bare(base: str, revision: str | None, **options: Any) -> Any:
    """The base's causal language model, a transformers `PreTrainedModel`.

    transformers puts on an adapter that it finds in the base's folder or repository (`adapter_config.json`), and
    draws random numbers for weights that the files lack. Neither is done here.

    Args:
        base: a folder or a name on the Hub.
        revision: on the Hub.
        options: further ones of transformers' `from_pretrained`.

    Raises:
        InputError: a file is missing, damaged or of another shape; a weight is missing, or holds NaN or infinity.
    """
    with _reported_unless_refused():
        return _load(base, revision, options)


@contextmanager
def _reported_unless_refused() -> Iterator[None]:
    """Holds transformers' table of what differs between files and model back until it is no refusal's line."""
    logger = logging.getLogger("transformers.modeling_utils")
    held: list[logging.LogRecord] = []

    def hold(record: logging.LogRecord) -> bool:
        held.append(record)
        return False

    logger.addFilter(hold)
    try:
        yield
    except InputError:
        held.clear()
        raise
    finally:
        logger.removeFilter(hold)
        for record in held:
            logger.handle(record)


def _load(base: str, revision: str | None, options: dict[str, Any]) -> Any:
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    files = hub.check_files(base)
    config = hub.changed_config(base, revision)
    if config is not None:
        options["config"] = config
    try:
        with watched_quantization() as damaged:
            loaded: Any = AutoModelForCausalLM.from_pretrained(
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
    model, found = loaded
    _check_bare(model, base)
    missing = sorted(found["missing_keys"])
    if missing:
        raise InputError(
            f"--model.backend.base: the weight files of '{base}' lack {len(missing)} of the model's weights, the first "
            f"'{missing[0]}': they are of another model than its config.json, or of a part of it"
        )
    _check_unused(model, sorted(found["unexpected_keys"]), base)
    _check_quantized_shapes(model, base)
    check_finite(model, damaged, base, files)
    return model


def _check_unused(model: Any, unused: list[str], base: str) -> None:
    """Refuses files with more decoder layers than the model, or with LoRA weights: it would be another model.

    transformers only warns of what it doesn't use. Further layers that predict more than one token are left out by
    intention (`num_nextn_predict_layers`), and so are a vision tower and the like.
    """
    lora = [name for name in unused if ".lora_" in name or ".base_layer." in name]
    if lora:
        raise InputError(
            f"--model.backend.base: the weight files of '{base}' hold LoRA weights beside the base's ({len(lora)}, the "
            f"first '{lora[0]}'), which would be left out: merge them (PEFT's merge_and_unload) and save it again, or "
            "give base and adapter apart"
        )
    config = model.config.get_text_config()
    depth = getattr(config, "num_hidden_layers", None)
    if not isinstance(depth, int) or getattr(config, "num_nextn_predict_layers", None):
        return
    held = {name for name, _ in model.named_parameters()}
    more = [
        name
        for name in unused
        if (match := _LAYER.search(name)) is not None
        and int(match[1]) >= depth
        and f"{name[: match.start(1)]}0{name[match.end(1) :]}" in held
    ]
    if more:
        raise InputError(
            f"--model.backend.base: config.json of '{base}' has num_hidden_layers {depth}, and its weight files hold "
            f"more, as '{more[-1]}', which would be left out: {_FROM_ONE_MODEL}"
        )


_LAYER = re.compile(r"\.(?:layers|h|blocks|layer)\.(\d+)\.")


def _check_quantized_shapes(model: nn.Module, base: str) -> None:
    """transformers compares the shapes of all weights but those that are quantized as they are loaded."""
    for name, layer in model.named_modules():
        weight: Any = getattr(layer, "weight", None)
        if weight is None or not isinstance(layer, nn.Linear):
            continue
        state = getattr(weight, "quant_state", None)
        if state is None and type(weight) is nn.Parameter and type(layer).__name__ == "Linear4bit":
            raise InputError(
                f"--model.backend.base: config.json of '{base}' says that its weights are quantized by bitsandbytes, "
                f"and '{name}.weight' is not: {_FROM_ONE_MODEL}"
            )
        given, expected = (
            tuple((weight if state is None else state).shape),
            (layer.out_features, layer.in_features),
        )
        if given != expected:
            raise InputError(
                f"--model.backend.base: the weights of '{base}' can't be loaded: '{name}.weight' is {list(given)}, and "
                f"config.json says {list(expected)}: {_FROM_ONE_MODEL}"
            )


_FROM_ONE_MODEL = "copy or download both again, from one model"


def _check_bare(model: Any, base: str) -> None:
    """Another version of transformers may look for adapters elsewhere."""
    if getattr(model, "_hf_peft_config_loaded", False):
        raise InputError(
            f"--model.backend.base: transformers has put the adapter in '{base}' on it: move adapter_config.json and "
            "adapter_model.safetensors out of that folder"
        )


def _refusal(error: Exception) -> str | None:
    """What is wrong with the files, and the fix; None where the error is of something else."""
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
