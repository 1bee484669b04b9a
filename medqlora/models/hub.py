"""Tokenizers and configurations from the Hub or a folder, and what tells one base from another.

Code that a base brings along (`auto_map`) is never run: transformers' `trust_remote_code` has no option here,
neither in a configuration nor on the command line, and is False wherever a base is first read. Left out, it would
ask on the terminal.
"""

import hashlib
import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from medqlora.errors import InputError

#: read of each tensor for a base's identity
_SAMPLE_BYTES = 1 << 16


def is_local(base: str) -> bool:
    """Whether `base` is meant as a folder: it exists, or is written as a path."""
    return Path(base).expanduser().exists() or base.startswith((".", "/", "~"))


def resolve(base: str) -> str:
    """`base` as transformers takes it: a folder's path in full, or the Hub's name as it is.

    Raises:
        InputError: it is meant as a folder, and holds no model.
    """
    if not is_local(base):
        return base
    folder = Path(base).expanduser()
    if not folder.is_dir():
        raise InputError(
            f"--model.backend.base: there is no folder '{base}': give a model's folder or its Hub name"
        )
    if not (folder / "config.json").is_file():
        raise InputError(
            f"--model.backend.base: '{base}' holds no config.json: it is not a transformers model"
        )
    return str(folder)


def _first_line(error: Exception) -> str:
    """transformers' messages run over many lines; the first says what is wrong."""
    text = str(error).strip()
    return text.splitlines()[0].rstrip(":. ") if text else type(error).__name__


def _unreachable(base: str, error: Exception) -> InputError:
    reason = _first_line(error)
    if "gated" in str(error).lower() or "401" in str(error):
        fix = "accept its licence on its Hub page, then `hf auth login`"
    else:
        fix = "check the name and the connection, or download it elsewhere and pass the folder"
    return InputError(f"--model.backend.base: '{base}' can't be had from the Hub ({reason}): {fix}")


@lru_cache(maxsize=4)
def load_config(base: str, revision: str | None = None) -> Any:
    """The base's transformers configuration.

    Raises:
        InputError: no such model, or the Hub can't be reached.
    """
    from transformers import AutoConfig

    path = resolve(base)
    try:
        config = AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=False)
    except (OSError, ValueError) as error:
        if _asks_for_code(error):
            raise _own_code(base) from error
        if is_local(base):
            raise InputError(
                f"--model.backend.base: {base}/config.json can't be used ({_first_line(error)}): correct it, or "
                "take a base of a family that this transformers knows"
            ) from error
        raise _unreachable(base, error) from error
    if getattr(config, "auto_map", None):
        from transformers import AutoModelForCausalLM

        # a family that transformers knows needs none of it; of another its model would be read from the folder
        if type(config) not in AutoModelForCausalLM._model_mapping:
            raise _own_code(base)
        del config.auto_map
    return config


def _asks_for_code(error: Exception) -> bool:
    """transformers' refusal without `trust_remote_code` is a ValueError like others."""
    return "trust_remote_code" in str(error)


def _own_code(base: str) -> InputError:
    return InputError(
        f"--model.backend.base: '{base}' brings Python code of its own (auto_map), which is never run: take a base "
        "of a family that this transformers knows"
    )


@lru_cache(maxsize=4)
def load_tokenizer(base: str, revision: str | None = None) -> Any:
    """The base's tokenizer, with a padding token (the end token where it has none of its own).

    Raises:
        InputError: no such model, no fast tokenizer, no end token, or the Hub can't be reached.
    """
    from transformers import AutoTokenizer

    path = resolve(base)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, revision=revision, trust_remote_code=False)
    except (OSError, ValueError) as error:
        if _asks_for_code(error):
            raise _own_code(base) from error
        if is_local(base):
            raise InputError(
                f"--model.backend.base: no tokenizer can be loaded from '{base}' ({_first_line(error)}): copy the "
                "base's tokenizer.json and tokenizer_config.json into it"
            ) from error
        raise _unreachable(base, error) from error
    if not tokenizer.is_fast:
        raise InputError(
            f"--model.backend.base: '{base}' has no fast tokenizer (tokenizer.json), which is needed"
        )
    if tokenizer.eos_token_id is None:
        raise InputError(
            f"--model.backend.base: the tokenizer of '{base}' has no end token: answers could not end"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token_id = tokenizer.eos_token_id
    return tokenizer


@lru_cache(maxsize=4)
def identity(base: str, revision: str | None = None) -> str:
    """The Hub's name and revision, or a digest of a folder's configuration and weights.

    A folder may be moved or renamed: the digest reads its `config.json` and the beginning of every tensor.
    Not of every file alone: an adapter merged into a base leaves the vocabulary, which comes first, as it is.

    Raises:
        InputError: there is no such folder, or a weight file in it is not whole.
    """
    path = resolve(base)
    if path == base and not is_local(base):
        return base if revision is None else f"{base}@{revision}"
    folder = Path(path)
    digest = hashlib.sha256()
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for key in ("_name_or_path", "transformers_version"):
        config.pop(key, None)
    digest.update(json.dumps(config, sort_keys=True).encode())
    for file in sorted([*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")]):
        digest.update(f"{file.name} {file.stat().st_size} ".encode())
        for piece in _samples(file):
            digest.update(piece)
    return f"sha256:{digest.hexdigest()[:32]}"


def _samples(file: Path) -> Iterator[bytes]:
    """What tells a weight file from others of its name and size, without reading it whole."""
    with file.open("rb") as stream:
        if file.suffix == ".bin":
            # torch's zip ends with its index, which holds a checksum of every tensor
            stream.seek(max(0, file.stat().st_size - (1 << 20)))
            yield stream.read()
            return
        size = int.from_bytes(stream.read(8), "little")
        index = stream.read(min(size, file.stat().st_size))
        try:
            tensors = json.loads(index)
        except ValueError as error:
            raise InputError(
                f"--model.backend.base: '{file}' is not a whole safetensors file: copy or download it again"
            ) from error
        yield index
        for name in sorted(tensors.keys() - {"__metadata__"}):
            start, end = tensors[name]["data_offsets"]
            stream.seek(8 + size + start)
            yield stream.read(min(end - start, _SAMPLE_BYTES))
