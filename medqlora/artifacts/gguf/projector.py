"""The vision tower and the projector of a vision-language model as a GGUF file of their own, llama.cpp's "mmproj".

llama.cpp reads keys `clip.*` and tensors `v.*` and `mm.*`, whose names and layouts differ between the towers:
https://github.com/ggml-org/llama.cpp/blob/master/docs/multimodal.md
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from medqlora.errors import InputError
from medqlora.models.vision.weight_names import LANGUAGE, loaded_name

if TYPE_CHECKING:
    from gguf import GGUFWriter
    from transformers import PretrainedConfig

#: side of a Qwen2.5-VL window in pixels, and the side that stands for its images' sizes: llama.cpp's own numbers
_WINDOW, _QWEN_SIDE = 112, 560
_BLOCK = re.compile(r"(?:encoder\.layers|blocks)\.(\d+)\.(.+)\.(weight|bias)")
#: CLIP's and SigLIP's parts of a layer -> GGUF's
_CLIP_LAYER = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.out_proj": "attn_out", "layer_norm1": "ln1", "layer_norm2": "ln2",
    "mlp.fc1": "ffn_up", "mlp.fc2": "ffn_down",
}  # fmt: skip
_QWEN_LAYER = {
    "attn.qkv": "attn_qkv", "attn.proj": "attn_out", "norm1": "ln1", "norm2": "ln2", "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "mlp.fc1": "ffn_up", "mlp.fc2": "ffn_down",
}  # fmt: skip
_CLIP = {
    "vision_tower.embeddings.class_embedding": "v.class_embd",
    "vision_tower.embeddings.patch_embedding": "v.patch_embd",
    "vision_tower.embeddings.position_embedding": "v.position_embd",
    "vision_tower.pre_layrnorm": "v.pre_ln",
    "vision_tower.post_layernorm": "v.post_ln",
    "multi_modal_projector.linear_1": "mm.0",
    "multi_modal_projector.linear_2": "mm.2",
    "multi_modal_projector.mm_input_projection_weight": "mm.input_projection.weight",
    "multi_modal_projector.mm_soft_emb_norm": "mm.soft_emb_norm",
}
_QWEN = {
    "visual.patch_embed.proj": "v.patch_embd",
    "visual.merger.ln_q": "v.post_ln",
    "visual.merger.mlp.0": "mm.0",
    "visual.merger.mlp.2": "mm.2",
}
#: `hidden_act` -> the key that tells llama.cpp; CLIP's own "quick_gelu" has none
_ACTIVATIONS = {
    "quick_gelu": None,
    "gelu": "clip.use_gelu",
    "gelu_pytorch_tanh": "clip.use_gelu",
    "silu": "clip.use_silu",
}

Named = Iterator[tuple[str, Tensor]]


@dataclass(frozen=True)
class Projector:
    """How a family's tower and projector are written.

    Attributes:
        kind: llama.cpp's name of the projector.
        parts: the beginning of a weight's name -> GGUF's.
        layer: the same of a layer's parts.
        write: writes the family's own keys; raises InputError for what llama.cpp can't compute.
    """

    kind: str
    parts: Mapping[str, str]
    layer: Mapping[str, str]
    write: Callable[["GGUFWriter", "PretrainedConfig"], None]


def _write_llava(writer: "GGUFWriter", config: "PretrainedConfig") -> None:
    vision, layer = config.vision_config, config.vision_feature_layer
    if vision.model_type != "clip_vision_model" or not isinstance(layer, int):
        raise _unsupported("its vision tower is no CLIP whose features are those of one layer")
    if config.vision_feature_select_strategy != "default":
        raise _unsupported(f"vision_feature_select_strategy {config.vision_feature_select_strategy!r}")
    if config.projector_hidden_act != "gelu":
        raise _unsupported(f"projector_hidden_act {config.projector_hidden_act!r}")
    last = _feature_layer(config)
    writer.add_bool("clip.has_llava_projector", True)
    writer.add_array("clip.vision.feature_layer", [last])
    _write_plain_tower(writer, vision, last)


def _write_plain_tower(writer: "GGUFWriter", vision: "PretrainedConfig", layers: int) -> None:
    """The tower's numbers where they have CLIP's names, as SigLIP's have too; `layers` of it are used."""
    _write_tower(
        writer,
        layers=layers,
        width=vision.hidden_size,
        wide=vision.intermediate_size,
        heads=vision.num_attention_heads,
        epsilon=vision.layer_norm_eps,
        size=vision.image_size,
        patch=vision.patch_size,
        activation=vision.hidden_act,
    )


def _write_gemma3(writer: "GGUFWriter", config: "PretrainedConfig") -> None:
    vision = config.vision_config
    patches = vision.image_size // vision.patch_size
    side = math.isqrt(config.mm_tokens_per_image)
    writer.add_uint32("clip.vision.projector.scale_factor", patches // side)
    _write_plain_tower(writer, vision, vision.num_hidden_layers)


def _write_qwen(writer: "GGUFWriter", config: "PretrainedConfig") -> None:
    vision = config.vision_config
    if vision.spatial_merge_size != 2 or vision.temporal_patch_size != 2:
        raise _unsupported("its patches are not merged two by two")
    newer = config.model_type == "qwen2_5_vl"
    if newer:
        complete = list(vision.fullatt_block_indexes)
        period = complete[0] + 1
        if complete != list(range(period - 1, vision.depth, period)) or vision.window_size != _WINDOW:
            raise _unsupported(
                f"its windows of {vision.window_size} pixels, with complete attention in layers {complete}"
            )
        writer.add_uint32("clip.vision.n_wa_pattern", period)
    width = vision.hidden_size if newer else vision.embed_dim
    _write_tower(
        writer,
        layers=vision.depth,
        width=width,
        wide=vision.intermediate_size if newer else int(width * vision.mlp_ratio),
        heads=vision.num_heads,
        epsilon=1e-6,
        size=_QWEN_SIDE,
        patch=vision.patch_size,
        activation=vision.hidden_act,
    )


PROJECTORS: dict[str, Projector] = {
    "llava": Projector("mlp", _CLIP, _CLIP_LAYER, _write_llava),
    "gemma3": Projector("gemma3", _CLIP, _CLIP_LAYER, _write_gemma3),
    "qwen2_vl": Projector("qwen2vl_merger", _QWEN, _QWEN_LAYER, _write_qwen),
    "qwen2_5_vl": Projector("qwen2.5vl_merger", _QWEN, _QWEN_LAYER, _write_qwen),
}


def projector_of(config: "PretrainedConfig", base: str) -> Projector:
    """How the base's vision tower is written. Raises InputError where it can't be."""
    kind = config.model_type
    if kind not in PROJECTORS:
        raise InputError(
            f"--to gguf: '{base}' is {kind}, and the vision tower is written for {', '.join(PROJECTORS)}: merge it "
            "(`medqlora merge`), and convert it with llama.cpp's convert_hf_to_gguf.py"
        )
    return PROJECTORS[kind]


def check_projector(config: "PretrainedConfig", folder: Path) -> None:
    """Refuses a base whose vision tower can't be written, before anything is.

    Raises:
        InputError: as `write_projector_keys`.
    """
    import gguf

    write_projector_keys(gguf.GGUFWriter(None, "clip"), config, folder)


def write_projector_keys(writer: "GGUFWriter", config: "PretrainedConfig", folder: Path) -> Projector:
    """Writes the keys `clip.*` of a model folder; how its tensors are written.

    Raises:
        InputError: llama.cpp can't compute this tower, or preprocessor_config.json can't be read.
    """
    projector = projector_of(config, str(folder))
    writer.add_string("clip.projector_type", projector.kind)
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_uint32("clip.vision.projection_dim", config.get_text_config().hidden_size)
    for key in ("image_mean", "image_std"):
        writer.add_array(f"clip.vision.{key}", _numbers(folder, key))
    projector.write(writer, config)
    return projector


def projector_tensors(projector: Projector, config: "PretrainedConfig", name: str, weight: Tensor) -> Named:
    """(GGUF name, tensor) of a weight of the model's files; nothing for one of the language model.

    Args:
        projector: as `write_projector_keys` returned it.
        config: the model's.
        name: in the files.
        weight: its values.

    Raises:
        InputError: the format has no place for it.
    """
    own = loaded_name(name)
    if own.startswith((LANGUAGE, "lm_head.")) or own.startswith("model.vision_tower.head."):
        return  # SigLIP's pooling head, which a vision-language model does not run
    own = own.removeprefix("model.")
    written = _projector_name(projector, own)
    if written is None:
        raise InputError(f"--to gguf: the format has no place for the weight {name}: use `medqlora merge`")
    if config.model_type == "llava" and _left_out(config, written):
        return
    if written == "mm.soft_emb_norm.weight":
        weight = weight.float() + 1  # Gemma's norm multiplies by 1 + weight, llama.cpp by the weight
    if ".attn_qkv." in written:
        for part, piece in zip("qkv", weight.chunk(3), strict=True):
            yield written.replace("attn_qkv", f"attn_{part}"), piece
    elif written == "v.patch_embd.weight" and weight.ndim == 5:  # one kernel for each of two frames
        yield written, weight[:, :, 0]
        yield f"{written}.1", weight[:, :, 1]
    else:
        yield written, weight


def _projector_name(projector: Projector, name: str) -> str | None:
    match = _BLOCK.search(name)
    if match is not None and match[2] in projector.layer:
        return f"v.blk.{match[1]}.{projector.layer[match[2]]}.{match[3]}"
    module, _, leaf = name.rpartition(".")
    if name in projector.parts:
        return projector.parts[name]
    return f"{projector.parts[module]}.{leaf}" if module in projector.parts else None


def _left_out(config: "PretrainedConfig", written: str) -> bool:
    """Whether LLaVA takes its features before this part of the tower."""
    number = re.match(r"v\.blk\.(\d+)\.", written)
    return written.startswith("v.post_ln.") or (
        number is not None and int(number[1]) >= _feature_layer(config)
    )


def _feature_layer(config: "PretrainedConfig") -> int:
    """The number of layers that LLaVA runs."""
    layer = int(config.vision_feature_layer)
    return layer if layer >= 0 else int(config.vision_config.num_hidden_layers) + layer + 1


def _write_tower(
    writer: "GGUFWriter",
    *,
    layers: int,
    width: int,
    wide: int,
    heads: int,
    epsilon: float,
    size: int,
    patch: int,
    activation: str,
) -> None:
    if activation not in _ACTIVATIONS:
        raise _unsupported(f"its activation {activation!r}")
    key = _ACTIVATIONS[activation]
    if key is not None:
        writer.add_bool(key, True)
    writer.add_uint32("clip.vision.image_size", size)
    writer.add_uint32("clip.vision.patch_size", patch)
    writer.add_uint32("clip.vision.embedding_length", width)
    writer.add_uint32("clip.vision.feed_forward_length", wide)
    writer.add_uint32("clip.vision.block_count", layers)
    writer.add_uint32("clip.vision.attention.head_count", heads)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", epsilon)


def _numbers(folder: Path, key: str) -> Sequence[float]:
    """Three numbers of preprocessor_config.json. Raises InputError."""
    file = folder / "preprocessor_config.json"
    try:
        found = json.loads(file.read_text("utf-8"))[key]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"--to gguf: {file} has no {key}: copy the base's own file") from error
    return [float(value) for value in found]


def _unsupported(what: str) -> InputError:
    return InputError(
        f"--to gguf: llama.cpp does not compute {what}: use `medqlora merge`, or the adapter's folder itself"
    )
