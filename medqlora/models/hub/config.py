"""The configuration of a base, corrected where its file would not work, and its weight files."""

import copy
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from medqlora.compat.transformers import reset_attention_implementation
from medqlora.errors import InputError
from medqlora.models.hub.location import (
    first_line,
    hub_file,
    is_local,
    needs_own_code,
    own_code,
    resolve,
    unreachable,
)
from medqlora.models.weight_files import (
    ADAPTER_CONFIG,
    adapter_given_as_base,
    check_weights,
    refuse_lfs_pointer,
)

if TYPE_CHECKING:
    from transformers import PretrainedConfig


class _Loaded(NamedTuple):
    """A configuration, and whether it differs from its file."""

    config: "PretrainedConfig"
    changed: bool


def load_config(base: str, revision: str | None = None) -> "PretrainedConfig":
    """The base's transformers configuration.

    Raises:
        InputError: no such model, or the Hub can't be reached.
    """
    return load(base, revision).config


def changed_config(base: str, revision: str | None = None) -> "PretrainedConfig | None":
    """A copy of the base's configuration where it differs from its file; else None."""
    config, changed = load(base, revision)
    return copy.deepcopy(config) if changed else None


def has_row(config: "PretrainedConfig", token_id: int) -> bool:
    """Whether the embedding has a row for `token_id`; True where the configuration has no number of rows."""
    rows = getattr(config.get_text_config(), "vocab_size", None)
    return not isinstance(rows, int) or token_id < rows


def check_files(base: str) -> list[Path]:
    """A local base's weight files, each checked by its header; none for a name on the Hub.

    Raises:
        InputError: a file is missing, cut short or a Git LFS pointer, or there are no weights.
    """
    path = resolve(base)
    if not is_local(base):
        return []
    quantized = getattr(load_config(base), "quantization_config", None) is not None
    return check_weights(Path(path), quantized=quantized)


@lru_cache(maxsize=4)
def load(base: str, revision: str | None) -> _Loaded:
    """As `load_config`; says also whether the configuration was changed."""
    config = _read(base, revision)
    if getattr(config, "auto_map", None):
        from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

        # a family that transformers knows needs none of it; another's model would be code from the folder
        if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
            raise own_code(base)
        del config.auto_map
    changed = False
    for part in (config, config.get_text_config()):
        # torch's embedding refuses a padding row that it lacks; the tokenizer's padding is used anyway
        padding = getattr(part, "pad_token_id", None) or 0
        if padding < 0 or not has_row(config, padding):  # Llama's first configurations say -1 for none
            part.pad_token_id = None
            changed = True
    # `--model.backend.attention` chooses the attention, not the machine that saved the base
    return _Loaded(config, reset_attention_implementation(config) or changed)


def _read(base: str, revision: str | None) -> "PretrainedConfig":
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    path = resolve(base)
    if is_local(base):
        refuse_lfs_pointer(Path(path) / "config.json")
    try:
        return AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=False)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, StrictDataclassError) as error:
        if needs_own_code(error):
            raise own_code(base) from error
        if is_local(base):
            raise InputError(
                f"--model.backend.base: {base}/config.json can't be used ({first_line(error)}): correct it, or "
                "take a base of a family that this transformers knows"
            ) from error
        adapter = hub_file(base, ADAPTER_CONFIG, revision)
        if adapter is not None:
            fault = adapter_given_as_base(adapter.parent, base)
            raise InputError(f"--model.backend.base: {fault}") from error
        raise unreachable(base, error) from error
