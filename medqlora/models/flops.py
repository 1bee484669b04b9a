"""Floating-point operations of a QLoRA step, counted from the model's shape."""

from typing import Any, NamedTuple

from torch import nn


class StepFlops(NamedTuple):
    """What a training step costs: a token's linear layers, its attention, and a row of the head.

    The base's weights take no gradient, so its linear layers cost a forward (2 P a token) and the
    gradient of their inputs (2 P), not the third product of full training. Attention's backward is 2.5
    times its forward (Dao, 2023, https://arxiv.org/abs/2307.08691, section 4). Recomputation under
    checkpointing is not counted: it is a cost, not work.

    Attributes:
        linear: a token's forward and backward through the base's and the adapters' linear layers.
        attention: the same a token and a key that it attends to.
        head: the same a row of the output head.
    """

    linear: float
    attention: float
    head: float

    def step(self, lengths: list[int], head_rows: int) -> float:
        """Of a step over examples of these `lengths` (tokens), with `head_rows` rows that carry loss."""
        tokens = sum(lengths)
        keys = sum(length * (length + 1) / 2 for length in lengths)
        return self.linear * tokens + self.attention * keys + self.head * head_rows


def step_flops(model: Any) -> StepFlops:
    """Counted from a transformers causal language model, or a PEFT model around one."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    config = base.config.get_text_config()
    head = base.get_output_embeddings()
    frozen = adapters = 0
    for module in base.modules():
        if isinstance(module, nn.Linear) and module is not head:
            size = module.in_features * module.out_features
            if module.weight.requires_grad:
                adapters += size
            else:
                frozen += size
    heads = config.num_attention_heads
    width = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
    return StepFlops(
        linear=2 * 2 * frozen + 3 * 2 * adapters,
        attention=3.5 * 4 * width * config.num_hidden_layers,
        head=2 * 2 * head.in_features * head.out_features,
    )
