"""Vision-language bases: what is quantized, where images go, and the loss against transformers' own."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_vision_models import FAMILIES, build_vision_base, write_image

from medqlora.data.batching.packing import micro_batch
from medqlora.data.encoding.encode import encode
from medqlora.data.images import image_file
from medqlora.data.prompts import lookup
from medqlora.errors import InputError
from medqlora.inference.generation import generate
from medqlora.models import LoRA, Transformers, VisionLanguage
from medqlora.models.layers import base_model, text_decoder
from medqlora.models.quantization import import_bitsandbytes
from medqlora.models.vision.parts import check_quantized
from medqlora.records import Encoded, Record
from medqlora.training.checks.images import check_images, without_images
from medqlora.training.checks.model import check_model

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("vision")


@pytest.fixture(scope="module", params=FAMILIES)
def backend(request: pytest.FixtureRequest, folder: Path) -> VisionLanguage:
    return VisionLanguage(str(build_vision_base(folder / request.param, request.param)))


@pytest.fixture(scope="module")
def model(backend: VisionLanguage) -> Any:
    return backend.load(lora=LoRA(r=4), adapter=None, device=CPU, dtype=torch.float32, seed=0)


@pytest.fixture(scope="module")
def examples(backend: VisionLanguage, folder: Path) -> list[Encoded]:
    """Two questions with an image of another size each, and one without."""
    sizes = ((48, 40), (32, 32))
    files = [image_file(write_image(folder / f"{n}.png", n, size), "test") for n, size in enumerate(sizes)]
    records = [
        Record("1", "Is there an effusion?", images=(files[0],), answer="yes"),
        Record("2", "Is there an effusion at all, or is there none?", images=(files[1],), answer="no"),
        Record("3", "Without a picture?", answer="no"),
    ]
    return [encode(one, lookup("medical"), backend.tokenizer(), 400, backend.images()) for one in records]


def test_the_language_models_layers_alone_are_quantized(backend: VisionLanguage, model: Any) -> None:
    bits = import_bitsandbytes().nn.Linear4bit
    base = base_model(model)
    layers = text_decoder(base).layers
    of_language = {id(module) for module in layers.modules()}
    quantized = [name for name, module in base.named_modules() if isinstance(module, bits)]
    assert len(quantized) == 7 * len(layers)
    assert all(id(base.get_submodule(name)) in of_language for name in quantized)
    adapted = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert len(adapted) == 2 * len(quantized)
    assert not any("vision" in name or "visual" in name or "projector" in name for name in adapted)


def test_a_padded_batch_has_the_losses_of_its_questions_alone(
    backend: VisionLanguage, model: Any, examples: list[Encoded]
) -> None:
    decoder = backend.decoder(model.eval())
    with torch.no_grad():
        together = decoder.loss_sum(micro_batch(examples, packed=False, pad_token_id=2))
        alone = [decoder.loss_sum(micro_batch([one], packed=False, pad_token_id=2)) for one in examples]
    assert float(together) == pytest.approx(float(sum(alone)), rel=1e-4)


def test_the_loss_is_the_models_own_on_transformers_own_inputs(
    backend: VisionLanguage, model: Any, examples: list[Encoded]
) -> None:
    """Where transformers' processor can be made without torchvision, it gives the inputs; else only the loss."""
    decoder, example = backend.decoder(model.eval()), examples[0]
    ids = torch.tensor([[*example.prompt, *example.completion]])
    inputs = dict(decoder.image_inputs(example.images, ids))
    processed = _processed(backend, example)
    if processed is not None:
        prompt = processed.pop("input_ids")[0].tolist()
        assert prompt == list(example.prompt)
        pixels = processed["pixel_values"]
        assert torch.equal(pixels, inputs["pixel_values"])
        inputs["pixel_values"] = pixels
    labels = torch.tensor([[-100] * len(example.prompt) + list(example.completion)])
    with torch.no_grad():
        theirs = base_model(model)(input_ids=ids, labels=labels, **inputs).loss * len(example.completion)
        ours = decoder.loss_sum(micro_batch([example], packed=False, pad_token_id=2))
    assert float(ours) == pytest.approx(float(theirs), rel=1e-5)


def _processed(backend: VisionLanguage, example: Encoded) -> dict[str, Any] | None:
    from PIL import Image
    from transformers import AutoImageProcessor, AutoTokenizer, Gemma3Processor, LlavaProcessor

    kind = backend.config().model_type
    if kind not in ("llava", "gemma3"):
        return None
    tokenizer = AutoTokenizer.from_pretrained(backend.base)
    pictures = AutoImageProcessor.from_pretrained(backend.base, backend="pil")
    if kind == "llava":
        made: Any = LlavaProcessor(
            pictures, tokenizer, patch_size=8, vision_feature_select_strategy="default", image_token="<image>",
            num_additional_image_tokens=1,
        )  # fmt: skip
        slot = "<image>\n"
    else:
        tokenizer.boi_token, tokenizer.eoi_token = "<start_of_image>", "<end_of_image>"
        tokenizer.image_token = "<image_soft_token>"
        tokenizer.boi_token_id, tokenizer.image_token_id = tokenizer.convert_tokens_to_ids(
            ["<start_of_image>", "<image_soft_token>"]
        )
        made = Gemma3Processor(pictures, tokenizer, image_seq_length=4)
        slot = "<start_of_image>"
    body = lookup("medical").body("Is there an effusion?", (), {}, ("yes", "no", "maybe"))
    picture = Image.open(example.images[0].image.path)
    return dict(made(images=[picture], text=slot + body, return_tensors="pt"))


def test_the_checks_before_the_first_step_pass_and_see_the_image(
    backend: VisionLanguage, model: Any, examples: list[Encoded]
) -> None:
    decoder = backend.decoder(model)
    check_images(model, decoder, examples, CPU)
    bare = [without_images(one) for one in examples]
    assert not any(decoder.images.token_id in one.prompt for one in bare)
    check_model(model, decoder, bare, CPU)


def test_a_generated_text_is_the_greedy_one_of_the_complete_forward(
    backend: VisionLanguage, model: Any, examples: list[Encoded]
) -> None:
    decoder = backend.decoder(model.eval())
    texts = generate(
        model,
        [one.prompt for one in examples],
        max_new_tokens=3,
        end_token_ids=[1],
        pad_token_id=2,
        device=CPU,
        images=([one.images for one in examples], decoder.image_inputs),
    )
    for one, text in zip(examples[:2], texts, strict=False):
        written = list(one.prompt)
        for token in text:
            batch = micro_batch([one._replace(prompt=written, completion=[0])], packed=False, pad_token_id=2)
            with torch.no_grad():
                best = decoder.logits(decoder.hidden(batch, batch.rows)).argmax(-1)
            assert int(best[0]) == token
            written.append(token)


def test_gradients_reach_every_adapter_and_none_is_kept_for_a_frozen_vision_tower(
    backend: VisionLanguage, model: Any, examples: list[Encoded]
) -> None:
    decoder = backend.decoder(model.train())
    seen: list[bool] = []
    tower = next(module for name, module in base_model(model).named_modules() if name in _TOWERS)
    handle = tower.register_forward_hook(lambda module, args, output: seen.append(_requires(output)))
    try:
        decoder.loss_sum(micro_batch(examples, packed=False, pad_token_id=2)).backward()
    finally:
        handle.remove()
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    assert all(weight.grad is not None for weight in trained)
    model.zero_grad()
    assert seen == [False]


_TOWERS = ("model.vision_tower", "model.visual")


def _requires(output: Any) -> bool:
    return any(value.requires_grad for value in output.values() if isinstance(value, torch.Tensor))


@pytest.mark.parametrize(
    ("option", "part"), [("adapt_projector", "projector"), ("adapt_vision", "vision_tower")]
)
def test_projector_and_vision_tower_get_adapters_when_asked(folder: Path, option: str, part: str) -> None:
    base = build_vision_base(folder / "adapted", "llava")
    loaded = VisionLanguage(str(base), **{option: True}).load(
        lora=LoRA(r=2), adapter=None, device=CPU, dtype=torch.float32, seed=0
    )
    outside = [
        name
        for name, weight in loaded.named_parameters()
        if weight.requires_grad and "language_model" not in name
    ]
    assert outside
    assert all(part in name for name in outside)


class _NothingMatches(VisionLanguage):
    def _unquantized(self, modules: Any) -> list[str]:
        return ["no_such_tower"]


def test_names_that_match_no_layer_do_not_leave_a_vision_tower_quantized_unseen(folder: Path) -> None:
    base = build_vision_base(folder / "trap", "llava")
    with pytest.raises(RuntimeError, match=r"layers are not quantized as meant .* is quantized"):
        _NothingMatches(str(base)).load(lora=None, adapter=None, device=CPU, dtype=torch.float32, seed=0)
    plain = VisionLanguage(str(base), quantization="none")
    check_quantized(plain.load(lora=None, adapter=None, device=CPU, dtype=torch.float32, seed=0), "none")


def test_a_base_that_was_quantized_earlier_runs_in_the_runs_own_type(folder: Path) -> None:
    """Of such files transformers casts some weights and leaves others as they are stored."""
    import shutil

    base = build_vision_base(folder / "sixteen-bits", "qwen2_5_vl")
    stored = folder / "stored"
    made = VisionLanguage(str(base)).load(lora=None, adapter=None, device=CPU, dtype=torch.bfloat16, seed=0)
    made.save_pretrained(stored)
    for file in ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"):
        shutil.copyfile(base / file, stored / file)
    backend = VisionLanguage(str(stored))
    loaded = backend.load(lora=LoRA(r=2), adapter=None, device=CPU, dtype=torch.float32, seed=0)
    types = {weight.dtype for weight in loaded.parameters()}
    assert types == {torch.float32, torch.uint8}
    picture = image_file(write_image(folder / "earlier.png"), "test")
    record = Record("1", "Is there an effusion?", images=(picture,), answer="yes")
    example = encode(record, lookup("medical"), backend.tokenizer(), 400, backend.images())
    loss = backend.decoder(loaded).loss_sum(micro_batch([example], packed=False, pad_token_id=2))
    assert torch.isfinite(loss)


def test_a_text_base_and_a_missing_image_processor_are_refused(
    tiny_bases: dict[str, Path], folder: Path
) -> None:
    with pytest.raises(InputError, match=r"reads text alone: use medqlora.models.Transformers"):
        VisionLanguage(str(tiny_bases["llama"])).check(LoRA(), device=CPU, precision="32")
    base = build_vision_base(folder / "no-processor", "llava")
    (base / "preprocessor_config.json").unlink()
    with pytest.raises(InputError, match=r"the image processor of .* can't be loaded"):
        VisionLanguage(str(base)).images()


def test_a_text_backend_leaves_images_out_of_the_prompt(tiny_bases: dict[str, Path], folder: Path) -> None:
    backend = Transformers(str(tiny_bases["llama"]))
    record = Record("1", "Is there an effusion?", answer="yes")
    pictured = Record(
        "1", "Is there an effusion?", answer="yes", images=(image_file(write_image(folder / "t.png"), "t"),)
    )
    prompt, tokenizer = lookup("medical"), backend.tokenizer()
    assert backend.images() is None
    assert encode(pictured, prompt, tokenizer, 200) == encode(record, prompt, tokenizer, 200)
