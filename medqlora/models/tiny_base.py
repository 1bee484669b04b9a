"""The demo's base: a small Llama with its own tokenizer, pretrained on this machine on unlabelled invented texts.

It learns to read and write such texts. Their answers are drawn at random, so it knows none.
"""

import hashlib
import json
import math
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medqlora.data.prompts import lookup
from medqlora.data.sources.synthetic_trials import pretraining_trials
from medqlora.errors import InputError
from medqlora.models.loading import no_bars
from medqlora.utils.cache import cache_folder
from medqlora.utils.locks import one_at_a_time
from medqlora.utils.progress import Bar, phase

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

Batch = TypeVar("Batch")

#: increase it when the texts or the training change outside `Recipe`
VERSION = 1
_BOS, _EOS, _PAD = "<s>", "</s>", "<pad>"


@dataclass(frozen=True)
class Recipe:
    """Everything that the weights depend on.

    Attributes:
        texts: number of texts in the pretraining, each used once.
        batch_size: texts per step.
        learning_rate: AdamW's maximum; linear warm-up, then half a cosine.
        hidden_size, layers, heads, intermediate_size, vocabulary: the model's shape.
        seed: of the texts, the weights and the order.
    """

    texts: int = 4000
    batch_size: int = 16
    learning_rate: float = 3e-3
    hidden_size: int = 192
    layers: int = 3
    heads: int = 6
    intermediate_size: int = 512
    vocabulary: int = 800
    seed: int = 0


def build_tiny_llama(seed: int = 0, recipe: Recipe | None = None) -> Path:
    """The folder of the base; built with a progress bar where the cache lacks it.

    It is written to another folder and renamed, so a killed build leaves nothing. One of several processes builds it.

    Raises:
        InputError: the cache folder can't be written.
    """
    recipe = recipe or Recipe(seed=seed)
    plain = json.dumps([VERSION, asdict(recipe)], sort_keys=True)

    def write(folder: Path, bar: Bar) -> None:
        torch.manual_seed(recipe.seed)
        model, tokenizer = _pretrain(recipe, bar)
        tokenizer.save_pretrained(folder)
        with no_bars():
            model.save_pretrained(folder)

    return built_once("tiny_llama", plain, write)


def built_once(kind: str, recipe: str, write: Callable[[Path, Bar], None]) -> Path:
    """The folder of an embedded base in the cache; built where the cache lacks it.

    Args:
        kind: the cache's folder for bases of this kind.
        recipe: all that decides the base, as text.
        write: makes the base, and writes it into a folder.

    Raises:
        InputError: the cache folder can't be written.
    """
    try:
        folder = cache_folder(kind) / hashlib.sha256(recipe.encode()).hexdigest()[:16]
        if not (folder / "config.json").is_file():
            with one_at_a_time(folder, "building the demo's base"):
                if not (folder / "config.json").is_file():  # else another process has built it meanwhile
                    _build(folder, write)
        return folder
    except OSError as error:
        raise InputError(
            f"no place for the demo's base: {error.filename or 'the cache'} can't be written "
            f"({error.strerror or error}): set MEDQLORA_CACHE to a folder that can"
        ) from error


def _build(folder: Path, write: Callable[[Path, Bar], None]) -> None:
    aside = Path(tempfile.mkdtemp(prefix=".building-", dir=folder.parent))
    try:
        with (
            phase("Building the demo's base") as bar,
            torch.random.fork_rng(devices=[]),
            torch.device("cpu"),
        ):
            write(aside, bar)
        try:
            aside.rename(folder)
        except OSError:  # another process was first, with the same result
            if not (folder / "config.json").is_file():
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _texts(recipe: Recipe) -> list[str]:
    """One text per trial: the medical prompt and an answer drawn at random."""
    prompt = lookup("medical")
    return [
        f"{prompt.body(trial.question, trial.contexts, trial.options, trial.labels)} "
        f"{prompt.completion(str(trial.answer), trial.long_answer, trial.labels)}"
        for trial in pretraining_trials(recipe.texts, recipe.seed)
    ]


def byte_level_tokenizer(
    texts: list[str], vocabulary: int, further: Sequence[str] = ()
) -> "PreTrainedTokenizerFast":
    """Byte-level BPE: encodes any text without loss; " yes", " no" and " maybe" are one token each.

    Args:
        texts: to learn the merges from.
        vocabulary: number of tokens.
        further: control tokens besides beginning, end and padding.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[_BOS, _EOS, _PAD, *further],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{_BOS} $A", pair=f"{_BOS} $A $B", special_tokens=[(_BOS, 0)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=_BOS,
        eos_token=_EOS,
        pad_token=_PAD,
        clean_up_tokenization_spaces=False,
    )


def _pretrain(recipe: Recipe, bar: Bar) -> "tuple[LlamaForCausalLM, PreTrainedTokenizerFast]":
    from transformers import LlamaConfig, LlamaForCausalLM

    texts = _texts(recipe)
    tokenizer = byte_level_tokenizer(texts, recipe.vocabulary)
    rows = [[*ids, tokenizer.eos_token_id] for ids in tokenizer(texts)["input_ids"]]
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=recipe.hidden_size,
            intermediate_size=recipe.intermediate_size,
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.heads,
            num_key_value_heads=recipe.heads,
            max_position_embeddings=4096,
            tie_word_embeddings=False,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.95), weight_decay=0.05
    )

    def loss(ids: Tensor) -> Tensor:
        logits = model(input_ids=ids, attention_mask=(ids != tokenizer.pad_token_id).long()).logits[:, :-1]
        return F.cross_entropy(
            logits.flatten(0, 1), ids[:, 1:].flatten(), ignore_index=tokenizer.pad_token_id
        )

    train(model, optimizer, list(_batches(rows, recipe, tokenizer.pad_token_id)), loss, bar)
    return model.eval(), tokenizer


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[Batch],
    loss: Callable[[Batch], Tensor],
    bar: Bar,
) -> None:
    """One pass over the batches, with linear warm-up and half a cosine from the optimizer's rate on.

    Args:
        model: its gradient is clipped to a norm of 1.
        optimizer: of the model, and of whatever else is trained.
        batches: a step each.
        loss: of a batch.
        bar: counts the steps.
    """
    rates = [group["lr"] for group in optimizer.param_groups]
    model.train()
    bar.total, bar.unit = len(batches), "steps"
    bar.begin_at(0)
    for step, batch in enumerate(batches):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * rate_factor(step, len(batches))
        loss(batch).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        bar.advance()


def _batches(rows: list[list[int]], recipe: Recipe, pad: int) -> Iterator[Tensor]:
    """Batches of ids [batch, longest], with texts of similar length together, in random order."""
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    groups = [order[start : start + recipe.batch_size] for start in range(0, len(order), recipe.batch_size)]
    random.Random(recipe.seed).shuffle(groups)
    for group in groups:
        longest = max(len(rows[index]) for index in group)
        yield torch.tensor([rows[index] + [pad] * (longest - len(rows[index])) for index in group])


def rate_factor(step: int, steps: int) -> float:
    """The learning rate's factor."""
    warmup = max(1, steps // 20)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
