"""A tokenizer as GGUF holds it: tokens, their kinds, merges, special tokens and the pre-tokenizer's name."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from medqlora.config.exports import PRE_TOKENIZERS
from medqlora.errors import InputError

if TYPE_CHECKING:
    from gguf import GGUFWriter

#: how SentencePiece names a byte
_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")
#: the expression by which a byte-level tokenizer splits text before its merges
_DIGITS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|DIGITS| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
)
#: that expression -> llama.cpp's name for it
_BY_PATTERN = {
    _DIGITS.replace("DIGITS", digits) + r"\s+(?!\S)|\s+": name
    for digits, name in ((r"\p{N}{1,3}", "llama-bpe"), (r"\p{N}", "qwen2"))  # Llama 3; Qwen 2 and 3
}


def check_vocabulary(folder: Path, pre_tokenizer: str | None = None) -> str | None:
    """llama.cpp's name for how a byte-level tokenizer splits text; None for SentencePiece.

    Args:
        folder: holds tokenizer.json.
        pre_tokenizer: the name, where the tokenizer does not tell it.

    Raises:
        InputError: the tokenizer is of a kind that GGUF has no name for.
    """
    tokenizer = _read(folder)
    model = tokenizer["model"]
    if model.get("type") != "BPE":
        raise InputError(
            f"--to gguf: the tokenizer is {model.get('type')}, and byte-level and SentencePiece BPE are known: export "
            "--to peft"
        )
    if model.get("byte_fallback"):
        return None
    name = pre_tokenizer or pre_tokenizer_name(tokenizer)
    if name is None:
        raise InputError(
            "--pre_tokenizer: how the tokenizer splits text is not known to llama.cpp under a name: pass one of "
            f"{', '.join(PRE_TOKENIZERS)}; the export is compared with the model's own token ids"
        )
    return name


def write_vocabulary(writer: "GGUFWriter", folder: Path, rows: int, pre_tokenizer: str | None = None) -> None:
    """Writes the tokenizer of a model folder.

    Args:
        writer: of the GGUF file.
        folder: holds tokenizer.json and config.json.
        rows: rows of the embedding; tokens that the tokenizer lacks are filled up.
        pre_tokenizer: llama.cpp's name, where the tokenizer does not tell it.

    Raises:
        InputError: the tokenizer is of a kind that GGUF has no name for.
    """
    import gguf

    name = check_vocabulary(folder, pre_tokenizer)
    if name is None:
        _write_sentencepiece(writer, folder, rows)
    else:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(name)
        tokens, kinds = _tokens(_read(folder), rows)
        writer.add_token_list(tokens)
        writer.add_token_types(kinds)
    special = gguf.SpecialVocab(folder, load_merges=name is not None, n_vocab=rows)
    for kind in ("bos", "eos"):  # without the key llama.cpp adds what it thinks right, as BOS for Llama 3
        special.add_special_token.setdefault(kind, False)
    special.add_to_gguf(writer, quiet=True)


def _read(folder: Path) -> dict[str, dict[str, object]]:
    try:
        tokenizer: dict[str, dict[str, object]] = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"--to gguf: {folder / 'tokenizer.json'} can't be read ({error})") from error
    return tokenizer


def pre_tokenizer_name(tokenizer: dict[str, dict[str, object]]) -> str | None:
    """llama.cpp's name for how a tokenizer.json splits text; None where it has none."""
    found = tokenizer.get("pre_tokenizer") or {}
    steps = found.get("pretokenizers") or [found]
    assert isinstance(steps, list)
    patterns = [step["pattern"].get("Regex") for step in steps if step.get("type") == "Split"]
    if patterns:
        return _BY_PATTERN.get(patterns[0]) if len(patterns) == 1 else None
    kinds = [step.get("type") for step in steps]
    if kinds == ["Digits", "ByteLevel"]:
        return "smollm"
    return "gpt-2" if kinds == ["ByteLevel"] else None


def _tokens(tokenizer: dict[str, dict[str, object]], rows: int) -> tuple[list[str], list[int]]:
    """Token texts by id and their kinds."""
    import gguf

    model = tokenizer["model"]
    vocabulary = model["vocab"]
    added: object = tokenizer.get("added_tokens") or []
    assert isinstance(vocabulary, dict)
    assert isinstance(added, list)
    by_id = {number: (text, gguf.TokenType.NORMAL) for text, number in vocabulary.items()}
    if model.get("byte_fallback"):
        by_id |= {
            number: (text, gguf.TokenType.BYTE)
            for text, number in vocabulary.items()
            if _BYTE.fullmatch(text)
        }
    for token in added:
        kind = gguf.TokenType.CONTROL if token["special"] else gguf.TokenType.USER_DEFINED
        if token["content"] == model.get("unk_token"):
            kind = gguf.TokenType.UNKNOWN
        by_id[token["id"]] = (token["content"], kind)
    filled = [by_id.get(number, (f"[PAD{number}]", gguf.TokenType.UNUSED)) for number in range(rows)]
    return [text for text, _ in filled], [int(kind) for _, kind in filled]


def _write_sentencepiece(writer: "GGUFWriter", folder: Path, rows: int) -> None:
    """Llama 2's and Mistral's kind: pieces with scores, and bytes for what has none."""
    tokenizer = _read(folder)
    texts, kinds = _tokens(tokenizer, rows)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(texts)
    writer.add_token_scores(piece_scores(tokenizer["model"], texts))
    writer.add_token_types(kinds)
    writer.add_add_space_prefix(adds_space(tokenizer))


def piece_scores(model: dict[str, object], texts: list[str]) -> list[float]:
    """SentencePiece's scores of the pieces, from the order of a tokenizer.json's merges.

    llama.cpp joins the two neighbours whose piece has the highest score; a tokenizer.json joins those of the earliest
    merge. So a piece's score is minus the rank of the first merge that makes it. Without scores (`LlamaHfVocab` of the
    `gguf` package gives every piece the same one) llama.cpp joins from the left, and the token ids differ.

    Args:
        model: of tokenizer.json.
        texts: token texts by id.
    """
    ranks: dict[str, int] = {}
    merges = model.get("merges") or []
    assert isinstance(merges, list)
    for rank, merge in enumerate(merges):
        pair = merge.split(" ") if isinstance(merge, str) else merge
        ranks.setdefault("".join(pair), rank)
    # single letters, bytes and special tokens are never joined from others; what no merge makes comes last
    return [
        -float(ranks[text]) if text in ranks else 0.0 if len(text) == 1 else -float(len(ranks) + 1)
        for text in texts
    ]


def adds_space(tokenizer: dict[str, dict[str, object]]) -> bool:
    """Whether a SentencePiece tokenizer puts a space in front of a text."""
    normalizer, splitter = (tokenizer.get(part) or {} for part in ("normalizer", "pre_tokenizer"))
    steps: list[dict[str, object]] = []
    for part, key in ((normalizer, "normalizers"), (splitter, "pretokenizers")):
        inner = part.get(key)
        steps += inner if isinstance(inner, list) else [part]
    prepends = any(step.get("type") == "Prepend" for step in steps)
    metaspace = next((step for step in steps if step.get("type") == "Metaspace"), None)
    if metaspace is None:
        return prepends
    scheme = metaspace.get("prepend_scheme", "always" if metaspace.get("add_prefix_space", True) else "never")
    return prepends or scheme != "never"
