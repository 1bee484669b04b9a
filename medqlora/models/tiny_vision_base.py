"""The base of the demo with images: a small LLaVA, made on this machine from drawn radiographs.

Its vision tower and projector learn to keep the brightness of each patch, and its language model to write answers that
are drawn at random. So it sees and writes, and knows no answer.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medqlora.data.images import read_pixels
from medqlora.data.images.radiograph import SIDE
from medqlora.data.prompts import lookup
from medqlora.data.sources.synthetic_radiographs import pretraining_radiographs
from medqlora.models.loading import no_bars
from medqlora.models.tiny_base import built_once, byte_level_tokenizer, train
from medqlora.records import Record
from medqlora.utils.progress import Bar

if TYPE_CHECKING:
    from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast

#: increase it when the texts, the pictures or the training change outside `VisionRecipe`
VERSION = 1
_IMAGE = "<image>"


@dataclass(frozen=True)
class VisionRecipe:
    """Everything that the weights depend on.

    Attributes:
        pictures: radiographs of the pretraining, each used once.
        batch_size: pictures per step.
        learning_rate: AdamW's maximum; linear warm-up, then half a cosine.
        patch: pixels of a patch's side; a patch is one image token.
        hidden_size, layers, heads, intermediate_size, vocabulary: the language model's shape.
        vision_size, vision_layers: the vision tower's.
        seed: of the pictures, the answers and the weights.
    """

    pictures: int = 1200
    batch_size: int = 16
    learning_rate: float = 3e-3
    patch: int = 16
    hidden_size: int = 128
    layers: int = 3
    heads: int = 4
    intermediate_size: int = 384
    vocabulary: int = 400
    vision_size: int = 64
    vision_layers: int = 1
    seed: int = 0


def build_tiny_vision(seed: int = 0, recipe: VisionRecipe | None = None) -> Path:
    """The folder of the base; built with a progress bar where the cache lacks it.

    Raises:
        InputError: the cache folder can't be written.
    """
    recipe = recipe or VisionRecipe(seed=seed)

    def write(folder: Path, bar: Bar) -> None:
        torch.manual_seed(recipe.seed)
        model, tokenizer = _pretrain(recipe, bar)
        tokenizer.save_pretrained(folder)
        (folder / "preprocessor_config.json").write_text(json.dumps(_processor(), indent=2) + "\n", "utf-8")
        with no_bars():
            model.save_pretrained(folder)

    return built_once("tiny_vision", json.dumps([VERSION, asdict(recipe)], sort_keys=True), write)


def _processor() -> dict[str, object]:
    return {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": SIDE},
        "crop_size": {"height": SIDE, "width": SIDE},
        "do_convert_rgb": True,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "resample": 3,
    }


def _texts(records: Sequence[Record]) -> list[str]:
    """The medical prompt of each question, and its answer in the pretraining."""
    prompt = lookup("medical")
    return [
        f"\n{prompt.body(one.question, (), {}, one.labels)} "
        f"{prompt.completion(str(one.answer), one.long_answer, one.labels)}"
        for one in records
    ]


def _model(recipe: VisionRecipe, tokenizer: "PreTrainedTokenizerFast") -> "LlavaForConditionalGeneration":
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    image = tokenizer.get_vocab()[_IMAGE]
    ids = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden_size,
        intermediate_size=recipe.intermediate_size,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=4096,
        tie_word_embeddings=False,
        **ids,
    )
    vision = CLIPVisionConfig(
        hidden_size=recipe.vision_size,
        intermediate_size=2 * recipe.vision_size,
        num_hidden_layers=recipe.vision_layers,
        num_attention_heads=4,
        image_size=SIDE,
        patch_size=recipe.patch,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=image,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        image_seq_length=(SIDE // recipe.patch) ** 2,
        tie_word_embeddings=False,
    )
    return LlavaForConditionalGeneration(config)


def _pretrain(
    recipe: VisionRecipe, bar: Bar
) -> "tuple[LlavaForConditionalGeneration, PreTrainedTokenizerFast]":
    records = list(pretraining_radiographs(recipe.pictures, recipe.seed))
    texts = _texts(records)
    tokenizer = byte_level_tokenizer(texts, recipe.vocabulary, (_IMAGE,))
    model = _model(recipe, tokenizer)
    image = [model.config.image_token_id] * (SIDE // recipe.patch) ** 2
    # the tokenizer puts the beginning before a text; here it stands before the image
    rows = [[ids[0], *image, *ids[1:], tokenizer.eos_token_id] for ids in tokenizer(texts)["input_ids"]]
    pictures = torch.stack([_pixels(record) for record in records])
    # reads each patch, 4 x 4 means, back from its embedding: else the features of a tower this small are noise
    reader = nn.Linear(recipe.hidden_size, 16)
    optimizer = torch.optim.AdamW(
        [*model.parameters(), *reader.parameters()], lr=recipe.learning_rate, betas=(0.9, 0.95)
    )

    def loss(start: int) -> Tensor:
        chosen = slice(start, start + recipe.batch_size)
        ids = _padded(rows[chosen], tokenizer.pad_token_id)
        return _loss(model, reader, ids, pictures[chosen], patch=recipe.patch, padding=tokenizer.pad_token_id)

    train(model, optimizer, range(0, len(rows), recipe.batch_size), loss, bar)
    return model.eval(), tokenizer


def _loss(
    model: "LlavaForConditionalGeneration",
    reader: nn.Linear,
    ids: Tensor,
    pictures: Tensor,
    *,
    patch: int,
    padding: int,
) -> Tensor:
    """Cross-entropy of the text, and the squared error of the patches that are read back."""
    image = model.config.image_token_id
    pixels = pictures[:, None].expand(-1, 3, -1, -1)
    logits = model(input_ids=ids, pixel_values=pixels, attention_mask=(ids != padding).long()).logits[:, :-1]
    targets = ids[:, 1:].masked_fill((ids[:, 1:] == padding) | (ids[:, 1:] == image), -100)
    written = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100)
    features = torch.stack(list(model.get_image_features(pixel_values=pixels).pooler_output))
    means = F.avg_pool2d(pictures[:, None], patch // 4)
    patches = F.unfold(means, kernel_size=4, stride=4).transpose(1, 2)
    return written + 4 * F.mse_loss(reader(features), patches)


def _pixels(record: Record) -> Tensor:
    """The grey picture as the image processor scales it, [SIDE, SIDE] in -1 to 1."""
    import numpy as np

    values = np.asarray(read_pixels(record.images[0]).convert("L"), dtype=np.float32)
    return torch.from_numpy(values / 127.5 - 1)


def _padded(rows: Sequence[Sequence[int]], padding: int) -> Tensor:
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[padding] * (longest - len(row))] for row in rows])
