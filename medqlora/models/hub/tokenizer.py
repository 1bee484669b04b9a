"""The tokenizer of a base, checked against the rows of its embedding."""

from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

from medqlora.errors import InputError
from medqlora.models.hub.config import has_row, load_config
from medqlora.models.hub.location import (
    adapter_beside,
    first_line,
    is_local,
    needs_own_code,
    own_code,
    resolve,
    unreachable,
)
from medqlora.models.weight_files import ADAPTER_CONFIG, refuse_lfs_pointer
from medqlora.utils.types import Tokenizer

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

#: a tokenizer needs one of these files
_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json")


class _Loaded(NamedTuple):
    """A tokenizer, and its own padding token where the embedding has no row for it and another is used."""

    tokenizer: "PreTrainedTokenizerBase"
    replaced_padding: str | None


def load_tokenizer(base: str, revision: str | None = None) -> Tokenizer:
    """The base's tokenizer. The end token pads where the embedding has no row for the padding token.

    Raises:
        InputError: no such model, no fast tokenizer, no end token, a tokenizer of another model, or the Hub can't
            be reached.
    """
    # transformers types a method with several results as their union: the protocol has the results used here
    return cast("Tokenizer", load(base, revision).tokenizer)


@lru_cache(maxsize=4)
def load(base: str, revision: str | None) -> _Loaded:
    """As `load_tokenizer`; says also whether the padding token was replaced."""
    tokenizer = _read(base, revision)
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
    with suppress(InputError):  # `load_config` reports a fault of the configuration
        config = load_config(base, revision)
    if config is not None:
        check_vocabulary(tokenizer, config, base)
    padding, replaced = tokenizer.pad_token_id, None
    if padding is None or (config is not None and not has_row(config, padding)):
        replaced = None if padding is None else tokenizer.pad_token
        tokenizer.pad_token_id = tokenizer.eos_token_id
    return _Loaded(tokenizer, replaced)


def _read(base: str, revision: str | None) -> "PreTrainedTokenizerBase":
    from transformers import AutoTokenizer

    path = resolve(base)
    if is_local(base):
        _check_files(base, Path(path))
    try:
        return AutoTokenizer.from_pretrained(path, revision=revision, trust_remote_code=False)
    except Exception as error:  # `tokenizers` raises Exception itself for a damaged file
        if needs_own_code(error):
            raise own_code(base) from error
        if is_local(base):
            raise _no_tokenizer(base, first_line(error)) from error
        if isinstance(error, (OSError, ValueError)):
            raise unreachable(base, error) from error
        raise


def _check_files(base: str, folder: Path) -> None:
    for name in (*_FILES, "tokenizer_config.json", "special_tokens_map.json"):
        refuse_lfs_pointer(folder / name)
    if not any((folder / name).is_file() for name in _FILES) and not any(folder.glob("*.tiktoken")):
        raise _no_tokenizer(base, "it holds no tokenizer.json")


def _no_tokenizer(base: str, reason: str) -> InputError:
    return InputError(
        f"--model.backend.base: no tokenizer can be loaded from '{base}' ({reason}): copy the base's tokenizer.json "
        "and tokenizer_config.json into it"
    )


def check_vocabulary(tokenizer: "PreTrainedTokenizerBase", config: "PretrainedConfig", base: str) -> None:
    """Raises InputError where the embedding lacks rows for the tokenizer's own vocabulary, or for its end token.

    Added tokens may lack one: padding often does, and a token that no text holds does no harm. An example with such a
    token is refused (`check_token_ids`).
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
    """Notes for the user on how the base is read, a line each.

    Raises:
        InputError: as `load_tokenizer` and `load_config`.
    """
    lines = []
    if adapter_beside(base, revision):
        lines.append(
            f"Note: '{base}' also holds {ADAPTER_CONFIG}; the base alone is used, without that adapter"
        )
    config, (tokenizer, padding) = load_config(base, revision), load(base, revision)
    added = {
        token: token_id
        for token, token_id in tokenizer.get_added_vocab().items()
        if not has_row(config, token_id)
    }
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
