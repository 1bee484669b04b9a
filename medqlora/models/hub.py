"""Tokenizers and configurations from the Hub or a folder, and what tells one base from another.

Code that a base brings along (`auto_map`) is never run: transformers' `trust_remote_code` has no option here,
neither in a configuration nor on the command line, and is False wherever a base is first read. Left out, it would
ask on the terminal.
"""

import copy
import hashlib
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from medqlora.errors import InputError
from medqlora.models.weight_files import (
    ADAPTER_CONFIG,
    adapter_given_as_base,
    check_weights,
    gguf_alone,
    not_a_model,
    read_object,
    refuse_lfs_pointer,
)

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
    if folder.is_file():
        wrong = (
            gguf_alone(base, [folder.name])
            if folder.suffix == ".gguf"
            else f"'{base}' is a file: give its folder"
        )
        raise InputError(f"--model.backend.base: {wrong}")
    if not folder.is_dir():
        raise InputError(
            f"--model.backend.base: there is no folder '{base}': give a model's folder or its Hub name"
        )
    if not (folder / "config.json").is_file():
        raise InputError(f"--model.backend.base: {not_a_model(base, folder)}")
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
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    path = resolve(base)
    if is_local(base):
        refuse_lfs_pointer(Path(path) / "config.json")
    try:
        config = AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=False)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, StrictDataclassError) as error:
        if _asks_for_code(error):
            raise _own_code(base) from error
        if is_local(base):
            raise InputError(
                f"--model.backend.base: {base}/config.json can't be used ({_first_line(error)}): correct it, or "
                "take a base of a family that this transformers knows"
            ) from error
        adapter = hub_file(base, ADAPTER_CONFIG, revision)
        if adapter is not None:
            raise InputError(
                f"--model.backend.base: {adapter_given_as_base(adapter.parent, base)}"
            ) from error
        raise _unreachable(base, error) from error
    if getattr(config, "auto_map", None):
        from transformers import AutoModelForCausalLM

        # a family that transformers knows needs none of it; of another its model would be read from the folder
        if type(config) not in AutoModelForCausalLM._model_mapping:
            raise _own_code(base)
        del config.auto_map
    for part in (config, config.get_text_config()):
        # torch's embedding refuses a padding row that it doesn't have; the tokenizer's padding is what is used
        padding = getattr(part, "pad_token_id", None) or 0
        if padding < 0 or not has_row(config, padding):  # Llama's first configurations say -1 for none
            part.pad_token_id = None
            _changed.add((base, revision))
    if getattr(config, "_attn_implementation_internal", None) is not None:
        # the attention of the machine that saved it, which may need a package; `--model.backend.attention` says ours
        config._attn_implementation = None
        _changed.add((base, revision))
    return config


#: base, revision of the configurations that aren't used as their file has them
_changed: set[tuple[str, str | None]] = set()


def changed_config(base: str, revision: str | None = None) -> Any:
    """A copy of the base's configuration where it isn't used as its file has it; else None."""
    config = load_config(base, revision)
    return copy.deepcopy(config) if (base, revision) in _changed else None


def has_row(config: Any, token_id: int) -> bool:
    """Whether the embedding has a row for `token_id`; True where the configuration doesn't say how many it has."""
    rows = getattr(config.get_text_config(), "vocab_size", None)
    return not isinstance(rows, int) or token_id < rows


def hub_file(base: str, name: str, revision: str | None = None) -> Path | None:
    """A file of the Hub's repository `base`, downloaded if need be; None where there is none or it can't be had."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(hf_hub_download(base, name, revision=revision))
    except (HfHubHTTPError, OSError, ValueError):
        return None


def check_files(base: str) -> list[Path]:
    """A local base's weight files, each checked by its header; none for a name on the Hub.

    Raises:
        InputError: a file is missing, cut or a Git LFS pointer, or there are no weights.
    """
    path = resolve(base)
    if not is_local(base):
        return []
    return check_weights(
        Path(path), quantized=getattr(load_config(base), "quantization_config", None) is not None
    )


def adapter_beside(base: str, revision: str | None = None) -> bool:
    """Whether the base's folder, or its repository on the Hub, also holds an adapter, which isn't to be loaded."""
    if is_local(base):
        return (Path(resolve(base)) / ADAPTER_CONFIG).is_file()
    return hub_file(base, ADAPTER_CONFIG, revision) is not None


@contextmanager
def bare_folder(base: str, revision: str | None = None) -> Iterator[str]:
    """`base`, or where an adapter lies beside it a folder of links to its other files, while it is entered.

    For a loader that puts on any adapter that it finds, and can't be told not to (Unsloth).
    """
    if not adapter_beside(base, revision):
        yield base
        return
    if is_local(base):
        whole = Path(resolve(base)).resolve()
    else:
        from huggingface_hub import snapshot_download

        whole = Path(
            snapshot_download(base, revision=revision, ignore_patterns=["adapter_*", "*.gguf", "*.pth"])
        )
    with tempfile.TemporaryDirectory(prefix="medqlora_base_") as place:
        for file in whole.iterdir():
            if not file.name.startswith("adapter_"):
                (Path(place) / file.name).symlink_to(file.resolve())
        yield place


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
    """The base's tokenizer, with a padding token that the embedding has a row for (else the end token is taken).

    Raises:
        InputError: no such model, no fast tokenizer, no end token, a tokenizer of another model, or the Hub can't
            be reached.
    """
    from transformers import AutoTokenizer

    path = resolve(base)
    if is_local(base):
        _check_tokenizer_files(base, Path(path))
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, revision=revision, trust_remote_code=False)
    except Exception as error:  # `tokenizers` raises Exception itself for a damaged file
        if _asks_for_code(error):
            raise _own_code(base) from error
        if is_local(base):
            raise _no_tokenizer(base, _first_line(error)) from error
        if isinstance(error, (OSError, ValueError)):
            raise _unreachable(base, error) from error
        raise
    if not tokenizer.is_fast:
        raise InputError(
            f"--model.backend.base: '{base}' has no fast tokenizer (tokenizer.json), which is needed"
        )
    if tokenizer.eos_token_id is None:
        raise InputError(
            f"--model.backend.base: the tokenizer of '{base}' has no end token: answers could not end; copy the "
            "base's own tokenizer_config.json, or set eos_token in it"
        )
    config = None
    with suppress(InputError):  # told where the configuration is what is asked for
        config = load_config(base, revision)
    if config is not None:
        check_vocabulary(tokenizer, config, base)
    if tokenizer.pad_token_id is None or (config is not None and not has_row(config, tokenizer.pad_token_id)):
        if tokenizer.pad_token_id is not None:
            _replaced_padding[base, revision] = tokenizer.pad_token
        tokenizer.pad_token_id = tokenizer.eos_token_id
    return tokenizer


#: base, revision → its padding token, where the embedding has no row for it and another is used
_replaced_padding: dict[tuple[str, str | None], str] = {}


#: any of them makes a tokenizer
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json")


def _check_tokenizer_files(base: str, folder: Path) -> None:
    for name in (*_TOKENIZERS, "tokenizer_config.json", "special_tokens_map.json"):
        refuse_lfs_pointer(folder / name)
    if not any((folder / name).is_file() for name in _TOKENIZERS) and not any(folder.glob("*.tiktoken")):
        raise _no_tokenizer(base, "it holds no tokenizer.json")


def _no_tokenizer(base: str, reason: str) -> InputError:
    return InputError(
        f"--model.backend.base: no tokenizer can be loaded from '{base}' ({reason}): copy the base's tokenizer.json "
        "and tokenizer_config.json into it"
    )


def check_vocabulary(tokenizer: Any, config: Any, base: str) -> None:
    """Raises InputError where the embedding lacks rows for the tokenizer's own vocabulary, or for its end token.

    Tokens that were added to it may lack one: padding often does, and what no text holds does no harm. An example
    that has such a token is refused (`check_token_ids`).
    """
    ids = tokenizer.backend_tokenizer.get_vocab(with_added_tokens=False).values()
    longest = max(ids, default=0)
    rows = getattr(config.get_text_config(), "vocab_size", None)
    if not has_row(config, longest):
        raise InputError(
            f"--model.backend.base: the tokenizer of '{base}' has token ids up to {longest:,}, and its embedding "
            f"{rows:,} rows (vocab_size): the tokenizer is another model's; copy the base's own tokenizer files"
        )
    if not has_row(config, tokenizer.eos_token_id):
        raise InputError(
            f"--model.backend.base: the end token {tokenizer.eos_token!r} of '{base}' is token "
            f"{tokenizer.eos_token_id:,}, and its embedding has {rows:,} rows (vocab_size): set eos_token in "
            "tokenizer_config.json to the base's own"
        )


@lru_cache(maxsize=4)
def remarks(base: str, revision: str | None = None) -> tuple[str, ...]:
    """What a user has to know of how the base is read, a line each; nothing where all is as usual.

    Raises:
        InputError: as `load_tokenizer` and `load_config`.
    """
    lines = []
    if adapter_beside(base, revision):
        lines.append(
            f"Note: '{base}' also holds {ADAPTER_CONFIG}; the base alone is used, without that adapter"
        )
    config, tokenizer = load_config(base, revision), load_tokenizer(base, revision)
    added = {
        text: number for text, number in tokenizer.get_added_vocab().items() if not has_row(config, number)
    }
    padding = _replaced_padding.get((base, revision))
    if padding is not None:
        lines.append(
            f"Note: the padding token {padding!r} of '{base}' is token {added.pop(padding, 'unknown')}, for which "
            f"the embedding has no row: {tokenizer.pad_token!r} pads instead"
        )
    if added:
        lines.append(
            f"Note: the embedding of '{base}' has no row for {len(added)} added tokens of its tokenizer, the first "
            f"{min(added)!r}: an example that holds one is refused"
        )
    return tuple(lines)


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
    config = read_object(folder / "config.json")
    for key in ("_name_or_path", "transformers_version"):
        config.pop(key, None)
    digest.update(json.dumps(config, sort_keys=True).encode())
    for file in sorted([*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")]):
        if file.name == "adapter_model.safetensors":  # an adapter that lies beside the base is no part of it
            continue
        refuse_lfs_pointer(file)
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
