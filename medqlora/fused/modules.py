"""The modules of transformers, PEFT and bitsandbytes that the engine reads, and their values as it needs them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from medqlora.fused.group import Adapter, Projection
from medqlora.fused.kernels.dequantize import Linear4bit
from medqlora.models.layers import base_model

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel
    from typing_extensions import TypeIs


class LowRank(Protocol):
    """A or B of an adapter."""

    weight: nn.Parameter


class AdaptedLinear(Protocol):
    """PEFT 0.21: `LoraLayer` around a linear layer; the keys of the mappings are adapter names."""

    base_layer: Linear4bit
    active_adapters: Sequence[str]
    lora_A: Mapping[str, LowRank]  # noqa: N815
    lora_B: Mapping[str, LowRank]  # noqa: N815
    lora_dropout: Mapping[str, nn.Module]
    scaling: Mapping[str, float]
    lora_bias: Mapping[str, bool]
    lora_variant: Mapping[str, object]
    merged: bool

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]: ...


class RMSNorm(Protocol):
    """transformers' `LlamaRMSNorm` and its kin."""

    weight: Tensor
    variance_epsilon: float


class Attention(Protocol):
    """`LlamaAttention` and its kin; `q_norm` and `k_norm` exist in families with head norms alone."""

    head_dim: int
    q_norm: RMSNorm
    k_norm: RMSNorm


class DecoderLayer(Protocol):
    """`LlamaDecoderLayer` and its kin."""

    self_attn: Attention
    mlp: nn.Module
    input_layernorm: RMSNorm
    post_attention_layernorm: RMSNorm


class DecoderLayers(Protocol):
    """The decoder's `ModuleList`."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[DecoderLayer]: ...

    def modules(self) -> Iterator[nn.Module]: ...


class RotaryEmbedding(Protocol):
    """`LlamaRotaryEmbedding` and its kin."""

    inv_freq: Tensor
    attention_scaling: float


class DecoderBody(Protocol):
    """`LlamaModel` and its kin."""

    embed_tokens: nn.Embedding
    layers: DecoderLayers
    norm: RMSNorm
    rotary_emb: RotaryEmbedding

    def named_modules(self) -> Iterator[tuple[str, nn.Module]]: ...


class CausalModel(NamedTuple):
    """The parts of a transformers causal language model.

    Attributes:
        body: the decoder without its head.
        head: the output embeddings.
        config: the text configuration.
    """

    body: DecoderBody
    head: nn.Module
    config: "PretrainedConfig"


def read_model(model: nn.Module) -> CausalModel:
    """The parts of a transformers causal language model, or of the one inside a PEFT model.

    Raises:
        AttributeError: it isn't Llama-like.
    """
    base: PreTrainedModel = base_model(model)
    body: DecoderBody = getattr(base, base.base_model_prefix)
    return CausalModel(body, base.get_output_embeddings(), text_config(base))


def text_config(model: nn.Module) -> "PretrainedConfig":
    """The configuration of a causal language model's text part."""
    base: PreTrainedModel = base_model(model)
    return base.config.get_text_config()


def linear_module(layer: DecoderLayer, name: str) -> Linear4bit | AdaptedLinear:
    """The module of one of the seven projections."""
    return getattr(layer.mlp if hasattr(layer.mlp, name) else layer.self_attn, name)


def read_projection(module: Linear4bit | AdaptedLinear, *, adapted: bool = True) -> Projection:
    """A linear layer and its active adapter; not `adapted` leaves the adapter out.

    Raises:
        ValueError: PEFT has several adapters active on it.
    """
    if not is_adapted(module):
        return Projection(module, None)
    linear = module.base_layer
    names = active_adapters(module) if adapted else []
    if not names:
        return Projection(linear, None)
    (name,) = names
    return Projection(
        linear,
        Adapter(
            module.lora_A[name].weight,
            module.lora_B[name].weight,
            float(module.scaling[name]),
            module.lora_dropout[name],
        ),
    )


def active_adapters(module: AdaptedLinear) -> list[str]:
    """Names of the active adapters that have weights on this layer."""
    return [name for name in module.active_adapters if name in module.lora_A]


def is_adapted(module: object) -> "TypeIs[AdaptedLinear]":
    """Whether PEFT has put LoRA around a linear layer."""
    return hasattr(module, "lora_A")


def read_norm(module: RMSNorm) -> tuple[Tensor, float]:
    """An RMS norm's weight and epsilon."""
    return module.weight, float(module.variance_epsilon)


def rope_type(config: "PretrainedConfig") -> str:
    """transformers' name for the scaling of the rotary frequencies; "default" for none."""
    return str(config.rope_parameters.get("rope_type", "default"))


def rotary_frequencies(rotary: RotaryEmbedding, config: "PretrainedConfig") -> tuple[Tensor, float]:
    """The angle per position [d / 2] float32, and the factor on cos and sin.

    Args:
        rotary: the model's rotary module; transformers' modules hold both values.
        config: the source of both for other modules, such as Unsloth's.
    """
    if hasattr(rotary, "inv_freq") and hasattr(rotary, "attention_scaling"):
        return rotary.inv_freq.float(), float(rotary.attention_scaling)
    kind = rope_type(config)
    if kind == "default":
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        exponents = torch.arange(0, width, 2, dtype=torch.float32) / width
        return 1.0 / config.rope_parameters["rope_theta"] ** exponents, 1.0
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    frequencies, factor = ROPE_INIT_FUNCTIONS[kind](config, torch.device("cpu"))
    return frequencies.float(), float(factor)
