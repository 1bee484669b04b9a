"""A decoder's shape: the number and place of its weights, from its transformers configuration."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medqlora.fused.families import FAMILIES, Family
from medqlora.models.flops import StepFlops, layer_values
from medqlora.models.lora import SEVEN_PROJECTIONS

if TYPE_CHECKING:
    from transformers import PretrainedConfig

#: model types with a norm before and after both the attention and the MLP
_FOUR_NORMS = ("gemma2", "gemma3_text", "glm4")


def weights_of_layers(config: "PretrainedConfig") -> int:
    """Weights of the decoder layers' linear modules; of a model that is no Llama-like decoder, an estimate."""
    text = config.get_text_config()
    try:
        return Shape.of(config).linear_parameters
    except AttributeError:
        return 12 * int(getattr(text, "num_hidden_layers", 0)) * int(getattr(text, "hidden_size", 0)) ** 2


@dataclass(frozen=True)
class Shape:
    """The sizes of a Llama-like decoder.

    Attributes:
        layers, hidden, heads, kv_heads, head_dim, intermediate, vocabulary: as in the configuration.
        tied: the head is the embedding.
        qkv_bias: q, k and v have biases (Qwen2).
        qk_norm: q and k have head norms (Qwen3).
        vision: weights of a vision tower and its projector, in 16 bits; 0 for a text model.
        norms: of hidden rows, per layer.
        caps_attention, caps_logits: the attention's scores and the head's logits go through a scaled tanh (Gemma 2).
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
    vision: int = 0
    norms: int = 2
    caps_attention: bool = False
    caps_logits: bool = False

    @classmethod
    def of(cls, config: "PretrainedConfig") -> "Shape":
        """The shape in a transformers configuration.

        Raises:
            AttributeError: the model isn't a Llama-like decoder.
        """
        config = config.get_text_config()
        if any("expert" in name for name in config.to_dict()):
            raise AttributeError(f"{config.model_type} has experts, not one MLP per layer")
        if len({*map(str, layer_values(config, "head_dim"))}) > 1 or getattr(config, "kv_lora_rank", None):
            raise AttributeError(f"{config.model_type} has attention of several kinds, or compressed")
        kinds = getattr(config, "layer_types", None) or getattr(config, "layers_block_type", None) or ()
        if not all(str(kind).endswith("attention") and "linear" not in str(kind) for kind in kinds):
            raise AttributeError(f"{config.model_type} has layers of several kinds")
        sizes = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size", "vocab_size")
        if nothing := [name for name in sizes if getattr(config, name) in (0, None)]:
            raise AttributeError(f"{config.model_type} has {nothing[0]} {getattr(config, nothing[0])}")
        try:
            return cls._of_fields(config)
        except RuntimeError as error:  # transformers' for a field that differs from layer to layer
            raise AttributeError(f"{config.model_type} has layers of several shapes") from error

    @classmethod
    def _of_fields(cls, config: "PretrainedConfig") -> "Shape":
        heads = config.num_attention_heads
        family = FAMILIES.get(config.model_type) or Family()
        return cls(
            layers=config.num_hidden_layers,
            hidden=config.hidden_size,
            heads=heads,
            kv_heads=getattr(config, "num_key_value_heads", None) or heads,
            head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
            intermediate=config.intermediate_size,
            vocabulary=config.vocab_size,
            tied=bool(config.tie_word_embeddings),
            qkv_bias=family.qkv_bias or bool(getattr(config, "attention_bias", False)),
            qk_norm=family.head_norms,
            norms=4 if config.model_type in _FOUR_NORMS else 2,
            caps_attention=bool(getattr(config, "attn_logit_softcapping", None)),
            caps_logits=bool(getattr(config, "final_logit_softcapping", None)),
        )

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """Projection → (outputs, inputs), for the seven projections of a layer."""
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
        """0 if the head is the embedding."""
        return 0 if self.tied else self.embedding_parameters

    @property
    def small_parameters(self) -> int:
        """Norms and biases."""
        per_layer = self.norms * self.hidden
        if self.qkv_bias:
            per_layer += (self.heads + 2 * self.kv_heads) * self.head_dim
        if self.qk_norm:
            per_layer += 2 * self.head_dim
        return self.layers * per_layer + self.hidden

    @property
    def base_parameters(self) -> int:
        """All weights of the base model."""
        text = self.linear_parameters + self.embedding_parameters + self.head_parameters
        return text + self.small_parameters + self.vision

    def lora_parameters(self, r: int, targets: Sequence[str] | None = None) -> int:
        """Weights of LoRA with rank `r` on `targets` (None for all seven projections)."""
        sizes = (self.linears[name] for name in targets or SEVEN_PROJECTIONS if name in self.linears)
        return self.layers * sum(r * (out + into) for out, into in sizes)

    def flops(self, r: int, targets: Sequence[str] | None = None) -> StepFlops:
        """FLOPs of a training step, counted as by `models.flops.step_flops` on a loaded model."""
        return StepFlops(
            linear=4 * self.linear_parameters + 6 * self.lora_parameters(r, targets),
            attention=3.5 * 4 * self.heads * self.head_dim * self.layers,
            head=4 * self.embedding_parameters,
        )
