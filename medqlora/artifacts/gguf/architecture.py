"""Which model families can be written, and how their tensors and shapes are named in GGUF."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from medqlora.errors import InputError
from medqlora.models.vision.weight_names import LANGUAGE, loaded_name

if TYPE_CHECKING:
    from gguf import GGUFWriter, TensorNameMap
    from transformers import PretrainedConfig

#: transformers' `model_type` -> GGUF's architecture
ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
#: the same of the language models inside vision-language models
_VISION_ARCHITECTURES = {
    "qwen2_vl_text": "qwen2vl",
    "qwen2_5_vl_text": "qwen2vl",
    "gemma3_text": "gemma3",
}
#: llama.cpp's own numbers of Gemma 3: every sixth layer attends to all, the others with this rotary base
_GEMMA_PERIOD, _GEMMA_LOCAL_THETA = 6, 10_000.0
#: architectures whose rotary halves llama.cpp interleaves: rows of q and k are permuted
_INTERLEAVED = ("llama",)


class Shape(NamedTuple):
    """The numbers of a decoder that decide how its tensors are written.

    Attributes:
        architecture: GGUF's name.
        layers, heads, key_value_heads: counts.
    """

    architecture: str
    layers: int
    heads: int
    key_value_heads: int

    @property
    def interleaved(self) -> bool:
        """Whether the rows of the query and key projections are permuted."""
        return self.architecture in _INTERLEAVED


def shape_of(config: "PretrainedConfig", base: str) -> Shape:
    """The shape of a base model.

    Raises:
        InputError: GGUF files of this family can't be written here.
    """
    text = config.get_text_config()
    kind, known = text.model_type, {**ARCHITECTURES, **_VISION_ARCHITECTURES}
    if kind not in known:
        raise InputError(
            f"--to gguf: '{base}' is {kind}, and GGUF is written for {', '.join(ARCHITECTURES)}: export --to peft, or "
            "convert a merged model with llama.cpp's convert_hf_to_gguf.py"
        )
    if kind == "gemma3_text":
        _check_gemma(text)
    heads = int(text.num_attention_heads)
    return Shape(known[kind], int(text.num_hidden_layers), heads, int(text.num_key_value_heads or heads))


def _check_gemma(config: "PretrainedConfig") -> None:
    """Raises InputError for a Gemma 3 that llama.cpp's fixed numbers don't fit."""
    complete = [(layer + 1) % _GEMMA_PERIOD == 0 for layer in range(config.num_hidden_layers)]
    local = config.rope_parameters["sliding_attention"]
    scale = (
        config.head_dim
        if config.num_hidden_layers != 62
        else config.hidden_size // config.num_attention_heads
    )
    if (
        [kind == "full_attention" for kind in config.layer_types] != complete
        or local["rope_theta"] != _GEMMA_LOCAL_THETA
        or local["rope_type"] != "default"
        or config.query_pre_attn_scalar != scale
    ):
        raise InputError(
            "--to gguf: llama.cpp knows Gemma 3 with complete attention in every sixth layer, a rotary base of 10,000 "
            "in the others, and its published scale of attention: use `medqlora merge`"
        )


def text_name(config: "PretrainedConfig", name: str) -> str | None:
    """The name of a weight in a file, as a text model has it; None for one of a vision tower or projector."""
    if getattr(config, "vision_config", None) is None:
        return name
    own = loaded_name(name)
    if own.startswith(LANGUAGE):
        return f"model.{own.removeprefix(LANGUAGE)}"
    return own if own.startswith("lm_head.") else None


def tensor_names(shape: Shape) -> "TensorNameMap":
    """The `gguf` package's map from transformers' tensor names."""
    import gguf

    return gguf.get_tensor_name_map(gguf.MODEL_ARCH[shape.architecture.upper()], shape.layers)


def gguf_name(names: "TensorNameMap", name: str) -> str:
    """The GGUF name of a parameter.

    Raises:
        InputError: the format has no place for it.
    """
    found = names.get_name(name, try_suffixes=(".weight", ".bias"))
    if found is None:
        raise InputError(f"--to gguf: the format has no place for the weight {name}: export --to peft")
    return str(found)


def permuted(weight: Tensor, heads: int) -> Tensor:
    """Rows of a query or key projection in llama.cpp's order: the two rotary halves interleaved.

    Args:
        weight: [heads * head_dim, in], or a bias [heads * head_dim].
        heads: number of heads that the rows belong to.
    """
    half = weight.shape[0] // heads // 2
    return weight.reshape(heads, 2, half, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def in_gguf_order(name: str, weight: Tensor, shape: Shape) -> Tensor:
    """A parameter with its rows as llama.cpp reads them."""
    if shape.interleaved and ".q_proj." in name:
        return permuted(weight, shape.heads)
    if shape.interleaved and ".k_proj." in name:
        return permuted(weight, shape.key_value_heads)
    if shape.architecture == "gemma3" and name.endswith("norm.weight"):
        return weight.float() + 1  # Gemma's norms multiply by 1 + weight, llama.cpp's by the weight
    return weight


def write_shape(writer: "GGUFWriter", config: "PretrainedConfig", shape: Shape) -> None:
    """Writes the decoder's hyperparameters."""
    head_dim = int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.key_value_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_rope_dimension_count(head_dim)
    rope = rope_parameters(config)
    theta = rope.get("rope_theta", 10_000.0)
    assert isinstance(theta, (int, float))
    writer.add_rope_freq_base(float(theta))
    if shape.architecture == "gemma3":
        writer.add_sliding_window(config.sliding_window)
    if shape.architecture == "qwen2vl":
        sections = rope["mrope_section"]
        assert isinstance(sections, list)
        writer.add_rope_dimension_sections([*sections, 0])
    if rope.get("rope_type") == "linear":
        import gguf

        factor = rope["factor"]
        assert isinstance(factor, (int, float))
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(factor))


def rope_parameters(config: "PretrainedConfig") -> Mapping[str, object]:
    """The rotary embedding's parameters, of transformers 5 (`rope_parameters`) and before (`rope_scaling`).

    Raises:
        InputError: GGUF files with this scaling can't be written here.
    """
    found = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    rope = {**found.get("full_attention", found)}  # Gemma 3 has two, and the other one is fixed
    rope.setdefault("rope_theta", getattr(config, "rope_theta", 10_000.0))
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "mrope":  # Qwen2-VL's older name: its sections stand beside it
        kind = "default"
    if kind not in ("default", "linear", "llama3"):
        raise InputError(
            f"--to gguf: its rotary embedding is scaled by '{kind}', known are linear and llama3: export --to peft"
        )
    return {**rope, "rope_type": kind}


def rope_factors(config: "PretrainedConfig") -> Tensor | None:
    """Llama 3.1's divisors of the rotary frequencies [head_dim / 2] float32; None for models without them.

    As transformers' `_compute_llama3_parameters`; llama.cpp divides each frequency by its factor.
    """
    rope = rope_parameters(config)
    if rope["rope_type"] != "llama3":
        return None
    numbers = {key: float(value) for key, value in rope.items() if isinstance(value, (int, float))}
    head_dim = int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
    frequencies = 1.0 / numbers["rope_theta"] ** (
        torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
    )
    original = numbers["original_max_position_embeddings"]
    low, high = numbers["low_freq_factor"], numbers["high_freq_factor"]
    factors = []
    for frequency in frequencies.tolist():
        wavelength = 2 * math.pi / frequency
        if wavelength < original / high:
            factors.append(1.0)
        elif wavelength > original / low:
            factors.append(numbers["factor"])
        else:
            smooth = (original / wavelength - low) / (high - low)
            factors.append(1.0 / ((1 - smooth) / numbers["factor"] + smooth))
    return torch.tensor(factors, dtype=torch.float32)
