"""Tiny random checkpoints of the families that are supported, made in a moment: fakes of size, not of kind."""

from pathlib import Path
from typing import Any

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2")


def build_tokenizer(texts: list[str], vocab_size: int = 600) -> Any:
    """A byte-level BPE tokenizer in the manner of Llama-3, with " yes", " no" and " maybe" as tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<s>", "</s>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*texts, *[" yes no maybe"] * 50], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 0)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )


def build_base(folder: Path, family: str = "llama", seed: int = 0, layers: int = 2, **changes: Any) -> Path:
    """A folder with a random causal language model of `family` and a tokenizer, as the Hub would give it.

    `changes` are fields of its configuration; None leaves one out that it doesn't have.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = build_tokenizer(
        ["MEDICAL QUESTION: does it help?\nCONTEXT: the trial showed that\nANSWER: yes."]
    )
    shape: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 4096,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 2,
    }
    fields = {name: value for name, value in {**shape, **changes}.items() if value is not None}
    config = AutoConfig.for_model(family, **fields)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        for parameter in model.parameters():
            parameter.data.add_(torch.randn_like(parameter) * 0.02)
        # hidden states are normalised: with a smaller head no logit could get large, and nothing be learned
        model.get_output_embeddings().weight.data.normal_(std=0.5)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def hub_cache(root: Path, name: str, folder: Path) -> Path:
    """Puts a folder's files into a Hub cache at `root` as those of the repository `name`; its snapshot there."""
    repository = root / f"models--{name.replace('/', '--')}"
    commit = "0" * 40
    snapshot = repository / "snapshots" / commit
    for made in (repository / "blobs", repository / "refs", snapshot):
        made.mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    for number, file in enumerate(sorted(folder.iterdir())):
        blob = repository / "blobs" / f"{number:040d}"
        blob.write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(blob)
    return snapshot
