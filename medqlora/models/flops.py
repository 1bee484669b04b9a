"""Floating-point operations of a QLoRA step, counted from the model's shape."""

from typing import TYPE_CHECKING, NamedTuple

from torch import nn

from medqlora.models.layers import base_model, experts
from medqlora.models.quantization import matrix_shape

if TYPE_CHECKING:
    from transformers import PretrainedConfig


class StepFlops(NamedTuple):
    """The operations of a training step: per token in linear layers, in attention, and per row of the head.

    The base's weights take no gradient, so its linear layers cost a forward (2 P a token) and the
    gradient of their inputs (2 P), not the third product of full training. Attention's backward is 2.5
    times its forward (Dao, 2023, https://arxiv.org/abs/2307.08691, section 4). Recomputation under
    checkpointing is not counted: it is a cost, not work.

    Attributes:
        linear: forward and backward of a token through the base's and the adapters' linear layers.
        attention: the same for a pair of a token and a key that it attends to.
        head: the same for a row of the output head.
    """

    linear: float
    attention: float
    head: float

    def step(self, lengths: list[int], head_rows: int) -> float:
        """The operations of a step on examples of these `lengths` in tokens, with `head_rows` rows that carry loss."""
        tokens = sum(lengths)
        keys = sum(length * (length + 1) / 2 for length in lengths)
        return self.linear * tokens + self.attention * keys + self.head * head_rows


def step_flops(model: nn.Module) -> StepFlops:
    """The operations of a transformers causal language model, or a PEFT model around one.

    In a mixture, only the experts that a token passes through count. A model without attention heads in its
    configuration counts as one without attention.
    """
    base = base_model(model)
    config = base.config.get_text_config()
    head = base.get_output_embeddings()
    frozen = adapters = 0.0
    for name, module in base.named_modules():
        if isinstance(module, nn.Linear) and module is not head:
            size = module.in_features * module.out_features
            if module.weight.requires_grad:
                adapters += size
            elif "lora_" not in name:
                frozen += size
    for expert in experts(base):
        shape = matrix_shape(expert.parameter)
        frozen += shape.numel() * _active_share(config, shape[0])
    width = 0
    for heads, head_dim, hidden in zip(
        layer_values(config, "num_attention_heads"),
        layer_values(config, "head_dim"),
        layer_values(config, "hidden_size"),
        strict=True,
    ):
        if isinstance(heads, int) and heads:
            width += heads * (head_dim or (hidden or 0) // heads)
    return StepFlops(
        linear=2 * 2 * frozen + 3 * 2 * adapters,
        attention=3.5 * 4 * width,
        head=2 * 2 * head.weight.numel(),
    )


def layer_values(config: "PretrainedConfig", name: str) -> list[int | None]:
    """A field of a text model's configuration, one value per layer: Gemma 4's heads differ between layers."""
    layers = getattr(config, "num_hidden_layers", 0)
    try:
        value = getattr(config, name, None)
    except RuntimeError:  # transformers refuses to name one value where several are
        return [getattr(layer, name, None) for layer in config.per_layer_config]
    return list(value) if isinstance(value, (list, tuple)) else [value] * layers


def _active_share(config: "PretrainedConfig", count: int) -> float:
    """The share of `count` experts that a token passes through; 1 where the configuration doesn't say."""
    for name in ("num_experts_per_tok", "top_k_experts", "moe_k", "moe_topk", "num_experts_per_token"):
        chosen = getattr(config, name, None)
        if isinstance(chosen, int):
            return min(1.0, chosen / count)
    return 1.0
