"""LoRA's options as PEFT takes them."""

from typing import TYPE_CHECKING

from torch import nn

from medqlora.config.lora import LoRAOptions
from medqlora.errors import InputError
from medqlora.models.layers import experts, last_part, linear_layers
from medqlora.models.targets import SEVEN_PROJECTIONS, Targets, find_targets

if TYPE_CHECKING:
    from peft import LoraConfig

__all__ = ["SEVEN_PROJECTIONS", "LoRA", "linear_names", "lora_targets", "peft_config"]

LoRA = LoRAOptions


def lora_targets(lora: LoRA, model: nn.Module) -> Targets:
    """The layers of `model` that get an adapter.

    Raises:
        InputError: as `find_targets`; or the experts of a mixture would silently get no adapter.
    """
    targets = find_targets(model, lora.target_modules)
    if lora.target_modules is None and not targets.parameters and experts(model):
        raise InputError(
            f"--model.lora.target_modules: PEFT has no adapters for the experts of {type(model).__name__}, most of "
            f"its weights: to adapt the other layers alone, name them: {','.join(targets.modules[:8])}"
        )
    obstacle = "dropout" if lora.dropout else "use_dora" if lora.use_dora else None
    if targets.parameters and obstacle is not None:
        fix = "0" if obstacle == "dropout" else "false"
        raise InputError(
            f"--model.lora.{obstacle} {getattr(lora, obstacle)}: PEFT has no {obstacle.replace('use_', '')} for "
            f"experts ({', '.join(targets.parameters)}): set it to {fix}, or name the other layers in "
            f"--model.lora.target_modules: {','.join(targets.modules[:8])}"
        )
    return targets


def peft_config(
    lora: LoRA, target_modules: list[str], target_parameters: list[str] | None = None, *, conv1d: bool = False
) -> "LoraConfig":
    """The options as PEFT's LoraConfig.

    Args:
        target_modules, target_parameters: from `lora_targets`.
        conv1d: whether the layers hold their weights as [in, out], as GPT-2's `Conv1D`.
    """
    from peft import LoraConfig

    return LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.r,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # PEFT divides; a float is right
        lora_dropout=lora.dropout,
        target_modules=target_modules,
        target_parameters=target_parameters or None,
        fan_in_fan_out=conv1d,
        use_rslora=lora.use_rslora,
        use_dora=lora.use_dora,
        # "eva" and "loftq" are computed afterwards, see `lora_init`; until then A is Kaiming-uniform, and B 0
        init_lora_weights=lora.init if lora.init == "gaussian" else True,
        bias="none",
    )


def linear_names(model: nn.Module) -> set[str]:
    """The last parts of the names of the linear layers inside the decoder's blocks."""
    return {last_part(name) for name in linear_layers(model)}
