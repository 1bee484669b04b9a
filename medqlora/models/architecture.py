"""What a base's architecture allows: told from its modules before a weight is loaded."""

from typing import Any

from medqlora.errors import InputError
from medqlora.models.layers import (
    cross_attention,
    experts,
    is_conv1d,
    linear_layers,
    raw_weights,
    text_decoder,
)
from medqlora.models.lora import LoRA, lora_targets, peft_config
from medqlora.models.quantization import Quantization
from medqlora.models.shares import adapted_names, predicted_shares


def check_architecture(
    config: Any,
    model: Any,
    base: str,
    lora: LoRA,
    *,
    quantization: Quantization,
    gradient_checkpointing: bool,
    allow_unquantized: bool,
) -> None:
    """Refuses what can't be trained as asked.

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
    if getattr(config, "is_encoder_decoder", False) or any(
        "encoder_attn" in one for one in cross_attention(model)
    ):
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
    targets = lora_targets(lora, model)
    shares = predicted_shares(model, quantization, targets)
    if quantization != "none" and not allow_unquantized and 2 * shares.quantized < shares.total:
        fix = "use nf4" if quantization == "int8" and experts(model) else "use another base"
        raise InputError(
            f"--model.backend.quantization {quantization}: only {shares.quantized / shares.total:.0%} of the weights "
            f"in the decoder layers of '{base}' ({kind}) can be quantized: {fix}, or pass "
            "--model.backend.allow_unquantized true"
        )


def unquantized_modules(model: Any) -> list[str] | None:
    """transformers' `llm_int8_skip_modules`; None for its own choice, which is the head.

    Args:
        model: the base's modules on the meta device.
    """
    raw = raw_weights(model)
    if not raw:
        return None
    head = model.get_output_embeddings()
    return [*raw, *(name for name, module in model.named_modules() if module is head)]


def put_adapters_on(model: Any, lora: LoRA) -> Any:
    """The PEFT model around a loaded `model`, with fresh adapters.

    Raises:
        InputError: PEFT took other layers than were meant.
    """
    from peft import get_peft_model

    targets = lora_targets(lora, model)
    linear = linear_layers(model)
    conv1d = any(is_conv1d(module) for module in linear.values())
    meant = {name for name in linear if _matches(name, targets.modules)}
    meant |= {expert.name for expert in experts(model) if _matches(expert.name, targets.parameters)}
    wrapped = get_peft_model(model, peft_config(lora, targets.modules, targets.parameters, conv1d=conv1d))
    different = sorted(meant ^ adapted_names(wrapped))
    if different:
        raise InputError(
            f"--model.lora.target_modules: PEFT put adapters on other layers than were meant ({len(different)} "
            f"differ, as {different[0]}): name the layers by the ends of their names"
        )
    return wrapped


def _matches(name: str, ends: list[str]) -> bool:
    return any(name == end or name.endswith(f".{end}") for end in ends)
