"""The vision tower's GGUF file: read by llama.cpp, and by the published formulas from the file's own tensors."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_vision_models import build_vision_base, write_image
from torch.nn import functional as F

from medqlora.artifacts.gguf.projector import check_projector
from medqlora.artifacts.gguf.projector_file import projector_path, write_projector
from medqlora.artifacts.gguf.writing import write_gguf
from medqlora.data.batching.packing import micro_batch
from medqlora.data.encoding.encode import encode
from medqlora.data.images import image_file
from medqlora.data.prompts import lookup
from medqlora.errors import InputError
from medqlora.inference.llama_cpp_images import LlamaCppWithImages, at_tower_size
from medqlora.models import VisionLanguage
from medqlora.models.hub import clear_caches, load_config
from medqlora.models.vision.weight_names import loaded_name
from medqlora.records import Encoded, Record

CPU = torch.device("cpu")
pytest.importorskip("gguf")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("projector")


def exported(folder: Path, family: str) -> tuple[VisionLanguage, Path]:
    """A random base, and its two files in float32."""
    base = build_vision_base(folder / family, family, published=family.startswith("qwen"))
    file = folder / f"{family}.gguf"
    write_gguf(base, file, "f32", {})
    write_projector(base, projector_path(file), "f32", {"medqlora.note": "for research"})
    return VisionLanguage(str(base), quantization="none"), file


def read(file: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Keys and tensors of a GGUF file, by the `gguf` package's own reader."""
    from gguf import GGUFReader

    reader = GGUFReader(file)
    keys = {name: field.contents() for name, field in reader.fields.items()}
    return keys, {tensor.name: torch.tensor(tensor.data) for tensor in reader.tensors}


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "gemma3"])
def test_llama_cpp_answers_about_an_image_as_the_live_model_does(folder: Path, family: str) -> None:
    pytest.importorskip("xllamacpp")
    backend, file = exported(folder, family)
    model = backend.load(lora=None, adapter=None, device=CPU, dtype=torch.float32, seed=0).eval()
    decoder, images, tokenizer = backend.decoder(model), backend.images(), backend.tokenizer()
    labels = tuple((token,) for token in range(0, 290, 3))
    expected, examples = [], []
    for number, size in enumerate(((170, 120), (90, 150))):
        picture = image_file(write_image(folder / f"{family}-{number}.png", number, size), "test")
        record = at_tower_size(Record(str(number), "Is there an effusion?", images=(picture,)), images)
        example = encode(record, lookup("medical"), tokenizer, 400, images)
        examples.append(example._replace(labels=labels))
        expected.append(log_probabilities(decoder, example)[: len(labels) * 3 : 3])
    with LlamaCppWithImages(file, projector_path(file), 400, images, tokenizer) as runtime:
        found = [torch.tensor(runtime.label_log_probabilities(example)) for example in examples]
    for ours, theirs in zip(expected, found, strict=True):
        # llama.cpp's GELU is read from a table in 16 bits
        assert (ours[: len(labels)] - theirs).abs().max() < 0.06
    # another picture changes the answer far more
    assert (found[0] - found[1]).abs().max() > 0.3


def log_probabilities(decoder: Any, example: Encoded) -> torch.Tensor:
    batch = micro_batch([example._replace(completion=[0], labels=())], packed=False, pad_token_id=2)
    with torch.no_grad():
        return decoder.logits(decoder.hidden(batch, batch.rows))[0].log_softmax(-1)


def test_llavas_tower_is_computed_from_the_files_tensors_as_transformers_does(folder: Path) -> None:
    """llama.cpp itself puts the class token behind the patches, so it is no oracle here."""
    backend, file = exported(folder, "llava")
    keys, tensors = read(projector_path(file))
    assert keys["clip.projector_type"] == "mlp"
    assert keys["clip.vision.block_count"] == 1  # of two layers: the features are those before the last
    assert keys["medqlora.note"] == "for research"
    model = backend.load(lora=None, adapter=None, device=CPU, dtype=torch.float32, seed=0).eval()
    pixels = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        ours = clip_features(keys, tensors, pixels)
        theirs = model.model.get_image_features(pixel_values=pixels)
    features = getattr(theirs, "pooler_output", theirs)
    assert torch.allclose(ours, torch.as_tensor(features[0]), atol=1e-4)


def clip_features(
    keys: dict[str, Any], tensors: dict[str, torch.Tensor], pixels: torch.Tensor
) -> torch.Tensor:
    """CLIP's vision transformer (Radford et al., 2021) and LLaVA's projector, from the file alone."""
    heads, epsilon = (
        keys["clip.vision.attention.head_count"],
        keys["clip.vision.attention.layer_norm_epsilon"],
    )

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        weight, bias = tensors[f"{name}.weight"], tensors[f"{name}.bias"]
        return F.layer_norm(x, x.shape[-1:], weight, bias, epsilon)

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.linear(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"])

    kernel = tensors["v.patch_embd.weight"]
    patches = F.conv2d(pixels, kernel, stride=keys["clip.vision.patch_size"])[0].flatten(1).T
    x = torch.cat([tensors["v.class_embd"][None], patches]) + tensors["v.position_embd.weight"]
    x = norm(x, "v.pre_ln")
    for layer in range(keys["clip.vision.block_count"]):
        at = f"v.blk.{layer}"
        y = norm(x, f"{at}.ln1")
        q, k, v = (
            linear(y, f"{at}.attn_{part}").unflatten(-1, (heads, -1)).transpose(0, 1) for part in "qkv"
        )
        mixed = F.scaled_dot_product_attention(q[None], k[None], v[None])[0].transpose(0, 1).flatten(1)
        x = x + linear(mixed, f"{at}.attn_out")
        y = linear(norm(x, f"{at}.ln2"), f"{at}.ffn_up")
        x = x + linear(y * torch.sigmoid(1.702 * y), f"{at}.ffn_down")  # quick GELU
    return linear(F.gelu(linear(x[1:], "mm.0")), "mm.2")


def test_what_llama_cpp_does_not_compute_is_refused_before_anything_is_written(folder: Path) -> None:
    base = build_vision_base(folder / "odd", "llava")
    config = json.loads((base / "config.json").read_text("utf-8"))

    def refusal(**changed: Any) -> str:
        (base / "config.json").write_text(json.dumps({**config, **changed}), encoding="utf-8")
        clear_caches()
        with pytest.raises(InputError) as caught:
            check_projector(load_config(str(base)), base)
        return str(caught.value)

    assert "vision_feature_select_strategy 'full'" in refusal(vision_feature_select_strategy="full")
    assert "features are those of one layer" in refusal(vision_feature_layer=[-2, -1])
    qwen = build_vision_base(folder / "windows", "qwen2_5_vl")  # windows of another size
    with pytest.raises(InputError, match=r"windows of 16 pixels"):
        check_projector(load_config(str(qwen)), qwen)
    newer = build_vision_base(folder / "newer", "qwen3_vl")
    with pytest.raises(InputError, match=r"is qwen3_vl, and the vision tower is written for llava, gemma3"):
        check_projector(load_config(str(newer)), newer)
    (qwen / "preprocessor_config.json").unlink()
    with pytest.raises(InputError, match=r"has no image_mean: copy the base's own file"):
        check_projector(load_config(str(qwen)), qwen)


@pytest.mark.parametrize(
    ("name", "loaded"),
    [
        (
            "language_model.model.layers.0.mlp.up_proj.weight",
            "model.language_model.layers.0.mlp.up_proj.weight",
        ),
        ("language_model.lm_head.weight", "lm_head.weight"),
        ("model.layers.0.mlp.up_proj.weight", "model.language_model.layers.0.mlp.up_proj.weight"),
        ("model.language_model.norm.weight", "model.language_model.norm.weight"),
        ("vision_tower.vision_model.post_layernorm.bias", "model.vision_tower.post_layernorm.bias"),
        ("model.vision_tower.post_layernorm.bias", "model.vision_tower.post_layernorm.bias"),
        ("visual.merger.ln_q.weight", "model.visual.merger.ln_q.weight"),
        ("model.multi_modal_projector.linear_1.bias", "model.multi_modal_projector.linear_1.bias"),
        ("lm_head.weight", "lm_head.weight"),
    ],
)
def test_files_of_each_version_of_transformers_have_one_scheme_of_names(name: str, loaded: str) -> None:
    assert loaded_name(name) == loaded
    assert loaded_name(loaded) == loaded


def test_an_image_at_the_towers_size_stays_as_it_is(folder: Path) -> None:
    backend = VisionLanguage(str(build_vision_base(folder / "sized", "qwen2_5_vl", published=True)))
    images = backend.images()
    picture = image_file(write_image(folder / "sized.png", 1, (170, 120)), "test")
    record = at_tower_size(Record("1", "?", images=(picture,)), images)
    assert images.size(picture) == images.size(record.images[0])
    assert at_tower_size(record, images) == replace(record, images=record.images)
