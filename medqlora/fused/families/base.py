"""A decoder family of the fused engine: the differences from Llama, and the registry of all families."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medqlora.utils.registry import Registry

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def no_window(config: "PretrainedConfig") -> None:
    """Attention sees every earlier token."""


def no_obstacle(config: "PretrainedConfig") -> None:
    """Every configuration of the family runs."""


@dataclass(frozen=True)
class Family:
    """The differences of a decoder family from Llama.

    The engine runs a family whose decoder layers have Llama's structure: `input_layernorm`, `self_attn` with
    q, k, v and o projections and rotary positions, `post_attention_layernorm`, and `mlp` with gate, up and
    down projections around SiLU. Both functions receive the text configuration.

    Attributes:
        qkv_bias: q, k and v have biases in every model; otherwise `attention_bias` of the configuration decides.
        head_norms: RMS norms `q_norm` and `k_norm` act on each head before the rotation.
        window: the attention window in tokens, None for no limit.
        obstacle: the reason why a configuration can't run, None if it can.
    """

    qkv_bias: bool = False
    head_norms: bool = False
    window: Callable[["PretrainedConfig"], int | None] = no_window
    obstacle: Callable[["PretrainedConfig"], str | None] = no_obstacle


#: transformers' `model_type` → family
FAMILIES: Registry[Family] = Registry("fused family", "medqlora.fused_families")


def sliding_window(config: "PretrainedConfig") -> int | None:
    """The window of Mistral's and Qwen's configurations.

    Qwen's `use_sliding_window` switches it on, for the layers that `layer_types` names.
    """
    window: int | None = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    enabled = getattr(config, "use_sliding_window", True) and (kinds is None or "sliding_attention" in kinds)
    return window if enabled else None


def layer_windows(config: "PretrainedConfig", window: int | None) -> list[int | None]:
    """The attention window of each layer; `window` is the family's. `layer_types` names the layers that have one."""
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"] * config.num_hidden_layers
    return [window if kind == "sliding_attention" else None for kind in kinds]
