"""A decoder's shape, read from its transformers configuration: how many weights, and where."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from medqlora.models.flops import StepFlops, layer_values
from medqlora.models.lora import SEVEN_PROJECTIONS


@dataclass(frozen=True)
class Shape:
    """What decides the size of a Llama-like decoder.

    Attributes:
        layers, hidden, heads, kv_heads, head_dim, intermediate, vocabulary: as the configuration has them.
        tied: whether the head is the embedding.
        qkv_bias: whether q, k and v have biases (Qwen2).
        qk_norm: whether q and k have norms of their own (Qwen3).
    """

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    tied: bool
    qkv_bias: bool = False
    qk_norm: bool = False

    @classmethod
    def of(cls, config: Any) -> "Shape":
        """Of a transformers configuration.

        Raises:
            AttributeError: it isn't of a Llama-like decoder.
        """
        config = config.get_text_config()
        if any("expert" in name for name in config.to_dict()):
            raise AttributeError(f"{config.model_type} has experts, not one MLP a layer")
        if len({*map(str, layer_values(config, "head_dim"))}) > 1 or getattr(config, "kv_lora_rank", None):
            raise AttributeError(f"{config.model_type} has attention of several kinds, or compressed")
        kinds = getattr(config, "layer_types", None) or getattr(config, "layers_block_type", None) or ()
        if not all(str(kind).endswith("attention") and "linear" not in str(kind) for kind in kinds):
            raise AttributeError(f"{config.model_type} has layers of several kinds")
        try:
            return cls._of_fields(config)
        except RuntimeError as error:  # transformers' for a field that differs from layer to layer
            raise AttributeError(f"{config.model_type} has layers of several shapes") from error

    @classmethod
    def _of_fields(cls, config: Any) -> "Shape":
        heads = config.num_attention_heads
        return cls(
            layers=config.num_hidden_layers,
            hidden=config.hidden_size,
            heads=heads,
            kv_heads=getattr(config, "num_key_value_heads", None) or heads,
            head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
            intermediate=config.intermediate_size,
            vocabulary=config.vocab_size,
            tied=bool(config.tie_word_embeddings),
            qkv_bias=config.model_type == "qwen2" or bool(getattr(config, "attention_bias", False)),
            qk_norm=config.model_type == "qwen3",
        )

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """Name → (outputs, inputs) of a layer's seven projections."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        d, ff = self.hidden, self.intermediate
        sizes = ((q, d), (kv, d), (kv, d), (d, q), (ff, d), (ff, d), (d, ff))
        return dict(zip(SEVEN_PROJECTIONS, sizes, strict=True))

    @property
    def linear_parameters(self) -> int:
        """Weights of the quantized layers."""
        return self.layers * sum(out * into for out, into in self.linears.values())

    @property
    def embedding_parameters(self) -> int:
        return self.vocabulary * self.hidden

    @property
    def head_parameters(self) -> int:
        """0 where the head is the embedding."""
        return 0 if self.tied else self.embedding_parameters

    @property
    def small_parameters(self) -> int:
        """Norms and biases."""
        per_layer = 2 * self.hidden
        if self.qkv_bias:
            per_layer += (self.heads + 2 * self.kv_heads) * self.head_dim
        if self.qk_norm:
            per_layer += 2 * self.head_dim
        return self.layers * per_layer + self.hidden

    def lora_parameters(self, r: int, targets: Sequence[str] | None = None) -> int:
        """Weights of adapters of rank `r` on `targets` (None for all seven)."""
        sizes = (self.linears[name] for name in targets or SEVEN_PROJECTIONS if name in self.linears)
        return self.layers * sum(r * (out + into) for out, into in sizes)

    def flops(self, r: int, targets: Sequence[str] | None = None) -> StepFlops:
        """Of a training step, counted as `models.flops.step_flops` counts a loaded model."""
        return StepFlops(
            linear=4 * self.linear_parameters + 6 * self.lora_parameters(r, targets),
            attention=3.5 * 4 * self.heads * self.head_dim * self.layers,
            head=4 * self.embedding_parameters,
        )
