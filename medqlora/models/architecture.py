"""Checks of a base's architecture, made on its modules before a weight is loaded."""

from collections.abc import Sequence, Set
from typing import TYPE_CHECKING

from torch import nn

from medqlora.errors import InputError
from medqlora.models.layers import (
    cross_attention,
    ends_with,
    experts,
    is_conv1d,
    linear_layers,
    raw_weights,
    text_decoder,
)
from medqlora.models.lora import LoRA, lora_targets, peft_config
from medqlora.models.quantization import INT4, BaseQuantization
from medqlora.models.shares import adapted_names, predicted_shares

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PretrainedConfig, PreTrainedModel


def check_architecture(
    config: "PretrainedConfig",
    model: nn.Module,
    base: str,
    lora: LoRA,
    *,
    quantization: BaseQuantization,
    gradient_checkpointing: bool,
    allow_unquantized: bool,
) -> None:
    """Refuses a base that can't be trained with these options.

    Args:
        config: the base's.
        model: its modules on the meta device.
        base: its name, for messages.
        lora: the adapters.
        quantization, gradient_checkpointing, allow_unquantized: the backend's options.

    Raises:
        InputError: names the option, the value and the fix.
    """
    kind = config.model_type
    reads_encoder = any("encoder_attn" in name for name in cross_attention(model))
    if getattr(config, "is_encoder_decoder", False) or reads_encoder:
        raise InputError(
            f"--model.backend.base: '{base}' ({kind}) is an encoder-decoder model: use a causal language model"
        )
    if hasattr(text_decoder(model), "layers_are_rescaled"):
        raise InputError(
            f"--model.backend.base: '{base}' ({kind}) rescales its weights in evaluation, which a quantized base "
            "can't: use another architecture"
        )
    if gradient_checkpointing and not getattr(model, "supports_gradient_checkpointing", False):
        raise InputError(
            f"--model.backend.gradient_checkpointing true: transformers has none for '{base}' ({kind}): set it to "
            "false"
        )
    if quantization in INT4 and experts(model):
        raise InputError(
            f"--model.backend.quantization {quantization}: '{base}' ({kind}) is a mixture of experts, and of those no "
            f"{quantization.upper()} files are read: take its 16-bit version with nf4"
        )
    targets = lora_targets(lora, model)
    shares = predicted_shares(model, quantization, targets)
    if quantization != "none" and not allow_unquantized and 2 * shares.quantized < shares.total:
        fix = "use nf4" if quantization == "int8" and experts(model) else "use another base"
        raise InputError(
            f"--model.backend.quantization {quantization}: only {shares.quantized / shares.total:.0%} of the weights "
            f"in the decoder layers of '{base}' ({kind}) can be quantized: {fix}, or pass "
            "--model.backend.allow_unquantized true"
        )


def unquantized_modules(model: "PreTrainedModel") -> list[str] | None:
    """transformers' `llm_int8_skip_modules`; None for its default, the head.

    Args:
        model: the base's modules on the meta device.
    """
    raw = raw_weights(model)
    if not raw:
        return None
    head = model.get_output_embeddings()
    return [*raw, *(name for name, module in model.named_modules() if module is head)]


def put_adapters_on(model: "PreTrainedModel", lora: LoRA, further: Sequence[str] = ()) -> "PeftModel":
    """The PEFT model around a loaded `model`, with fresh adapters.

    Args:
        model: the base.
        lora: the adapters.
        further: full names of layers outside the decoder that get adapters too.

    Raises:
        InputError: PEFT adapted other layers than the targets.
    """
    from peft import get_peft_model

    targets = lora_targets(lora, model)
    linear = linear_layers(model)
    conv1d = any(is_conv1d(module) for module in linear.values())
    intended = {name for name in linear if ends_with(name, *targets.modules)}
    names = targets.modules
    if further:
        # by full names: the vision tower has layers of the same names
        names = [*sorted(intended), *further]
        intended |= {*further}
    intended |= {expert.name for expert in experts(model) if ends_with(expert.name, *targets.parameters)}
    wrapped = get_peft_model(model, peft_config(lora, names, targets.parameters, conv1d=conv1d))
    check_adapted(wrapped, intended)
    return wrapped


def check_adapted(model: nn.Module, intended: Set[str]) -> None:
    """Raises InputError where other layers than `intended`, by their full names, have an adapter."""
    different = sorted(intended ^ adapted_names(model))
    if different:
        raise InputError(
            f"--model.lora.target_modules: PEFT put adapters on other layers than were meant ({len(different)} "
            f"differ, as {different[0]}): name the layers by the ends of their names"
        )
