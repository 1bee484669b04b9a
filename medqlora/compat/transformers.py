"""Private parts of transformers 5.17-5.24."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedModel


def attention_implementation(config: "PretrainedConfig") -> str | None:
    """The attention that a model runs with: "sdpa", "eager", …; None where it isn't chosen yet.

    transformers 5.17-5.24 takes it as the public argument `attn_implementation` and has no public way to read it.
    """
    return getattr(config, "_attn_implementation", None)


def reset_attention_implementation(config: "PretrainedConfig") -> bool:
    """Removes the attention that config.json names; True where it named one.

    transformers 5.17-5.24 reads the choice of the machine that saved the model (`_attn_implementation`), which may
    need a package that is missing here. The public argument replaces it, but can't say "no choice".
    """
    if getattr(config, "_attn_implementation_internal", None) is None:
        return False
    config._attn_implementation = None
    return True


def carries_state_in_cache(model: "nn.Module") -> bool:
    """Whether the model's class declares a recurrent state (Mamba and the like).

    transformers 5.17-5.24 keeps the flag `_is_stateful` private, and generation reads it for the same reason.
    """
    return bool(getattr(model, "_is_stateful", False))


def has_loaded_adapter(model: "PreTrainedModel") -> bool:
    """Whether `from_pretrained` put an adapter on the model that it found beside the weights.

    transformers 5.17-5.24: the public `active_adapters()` raises where there is none; this flag is what it reads.
    """
    return bool(getattr(model, "_hf_peft_config_loaded", False))


@contextmanager
def one_weight_at_a_time() -> Iterator[None]:
    """While entered, transformers reads a weight when it is its turn, and none ahead of it.

    By itself it reads quantized files with threads, which fill a GPU before the weights are taken.
    """
    name = "HF_DEACTIVATE_ASYNC_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
