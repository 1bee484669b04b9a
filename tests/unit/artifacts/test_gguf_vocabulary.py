"""Tokenizers in GGUF: the token ids of plain and chat prompts are the same in llama.cpp, whatever the family."""

from pathlib import Path
from typing import Any

import pytest
from harness import questions
from tiny import build_base
from tokenizer_families import family

from medqlora.artifacts.exports.tokens import token_faults
from medqlora.artifacts.gguf import vocabulary, writing
from medqlora.data import encode_all, lookup
from medqlora.errors import InputError
from medqlora.inference.llama_cpp import LlamaCpp
from medqlora.records import Record

gguf = pytest.importorskip("gguf", reason="the extra [gguf] is not installed")
pytest.importorskip("xllamacpp", reason="the extra [gguf] is not installed")

#: as in Meta's tokenizer.json
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)
TEXTS = (
    "Do statins reduce the risk of atrial fibrillation?\nANSWER:",
    "mean age was 61.5 years (p < 0.05), 12345678 patients\n\n\tnaïve  東京 😀 end",
    " leading space, and  two",
)


def tokenizer_of(name: str) -> Any:
    """The family's small tokenizer, byte-level ones with the expression of the real family."""
    import copy

    from tokenizers import Regex, pre_tokenizers
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

    made = copy.deepcopy(family(name))
    if name in ("llama3", "qwen2"):
        pattern = Regex(LLAMA3 if name == "llama3" else PRETOKENIZE_REGEX)
        made.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(pattern, "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    return made


def base_with(folder: Path, tokenizer: Any, architecture: str) -> Path:
    """A tiny base model with this tokenizer."""
    base = build_base(
        folder,
        architecture,
        layers=1,
        vocab_size=len(tokenizer) + 3,  # rows that no token has, as in padded vocabularies
        hidden_size=32,
        num_attention_heads=2,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )
    for file in base.glob("*token*"):
        file.unlink()
    tokenizer.save_pretrained(base)
    return base


@pytest.mark.parametrize(
    ("name", "architecture", "model", "splits"),
    [
        ("llama3", "llama", "gpt2", "llama-bpe"),
        ("qwen2", "qwen2", "gpt2", "qwen2"),
        ("llama2", "llama", "llama", "default"),
        ("mistral", "mistral", "llama", "default"),
        ("mistral_always", "mistral", "llama", "default"),
    ],
)
def test_plain_and_chat_prompts_have_the_same_token_ids_in_both_runtimes(
    tmp_path: Path, name: str, architecture: str, model: str, splits: str
) -> None:
    tokenizer = tokenizer_of(name)
    base, file = base_with(tmp_path / "base", tokenizer, architecture), tmp_path / "m.gguf"
    writing.write_gguf(base, file, "f16", {})
    fields = gguf.GGUFReader(file).fields
    assert fields["tokenizer.ggml.model"].contents() == model
    assert fields["tokenizer.ggml.pre"].contents() == splits
    assert fields["tokenizer.chat_template"].contents() == tokenizer.chat_template
    records = [
        Record(row["id"], row["question"], tuple(row["contexts"]), answer=row["answer"])
        for row in questions(3)
    ]
    with LlamaCpp(file, 512) as runtime:
        for prompt in (lookup("medical"), lookup("chat")):
            examples = encode_all(records, prompt, tokenizer, 400, progress=False, cached=False)
            assert token_faults(runtime, tokenizer, [one.prompt for one in examples]) == []
        # to a text that begins with a space, llama.cpp adds another one, and Metaspace none
        for text in TEXTS[: 2 if name.startswith("mistral") else 3]:
            assert runtime.tokens(text) == tokenizer.encode(text)


def test_equal_scores_would_be_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = tokenizer_of("llama2")
    base, file = base_with(tmp_path / "base", tokenizer, "llama"), tmp_path / "m.gguf"
    monkeypatch.setattr(vocabulary, "piece_scores", lambda model, texts: [-1000.0] * len(texts))
    writing.write_gguf(base, file, "f16", {})
    prompts = [tokenizer.encode(text) for text in TEXTS]
    with LlamaCpp(file, 512) as runtime:
        assert "token ids differ" in token_faults(runtime, tokenizer, prompts)[0]


def test_a_tokenizer_that_gguf_has_no_name_for_is_one_line_with_the_option(tmp_path: Path) -> None:
    base = base_with(tmp_path / "base", family("qwen2"), "qwen2")  # splits as no known model does
    with pytest.raises(
        InputError, match=r"--pre_tokenizer: how the tokenizer splits text is not known .* qwen2"
    ):
        vocabulary.check_vocabulary(base)
    assert vocabulary.check_vocabulary(base, "qwen2") == "qwen2"
    (base / "tokenizer.json").write_text('{"model": {"type": "WordPiece"}}')
    with pytest.raises(InputError, match=r"--to gguf: the tokenizer is WordPiece, .*: export --to peft"):
        vocabulary.check_vocabulary(base)
