"""Shapes of models by name, and the shape in a model's config.json; no weights are read."""

import json
from pathlib import Path

import yaml

from medqlora.config.shipped import config_path
from medqlora.errors import InputError
from medqlora.profiling.case import ModelShape
from medqlora.utils.types import Json

#: name → (source of the numbers, shape)
SHAPES: dict[str, tuple[str, ModelShape]] = {
    "llama-3-8b": (
        "https://huggingface.co/meta-llama/Meta-Llama-3-8B/blob/main/config.json",
        {
            "model_type": "llama", "vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336,
            "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
            "max_position_embeddings": 8192, "rope_theta": 500000.0, "rms_norm_eps": 1e-5,
            "tie_word_embeddings": False,
        },
    ),
    "llama-3-70b": (
        "https://huggingface.co/meta-llama/Meta-Llama-3-70B/blob/main/config.json",
        {
            "model_type": "llama", "vocab_size": 128256, "hidden_size": 8192, "intermediate_size": 28672,
            "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8,
            "max_position_embeddings": 8192, "rope_theta": 500000.0, "rms_norm_eps": 1e-5,
            "tie_word_embeddings": False,
        },
    ),
    "mistral-7b": (
        "https://huggingface.co/mistralai/Mistral-7B-v0.3/blob/main/config.json",
        {
            "model_type": "mistral", "vocab_size": 32768, "hidden_size": 4096, "intermediate_size": 14336,
            "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
            "max_position_embeddings": 32768, "rope_theta": 1000000.0, "rms_norm_eps": 1e-5,
            "sliding_window": None, "tie_word_embeddings": False,
        },
    ),
    "qwen3-8b": (
        "https://huggingface.co/Qwen/Qwen3-8B/blob/main/config.json",
        {
            "model_type": "qwen3", "vocab_size": 151936, "hidden_size": 4096, "intermediate_size": 12288,
            "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
            "max_position_embeddings": 40960, "rope_theta": 1000000.0, "rms_norm_eps": 1e-6,
            "tie_word_embeddings": False,
        },
    ),
    "tiny": (
        "this project: has every kind of layer, and runs on a CPU",
        {
            "model_type": "llama", "vocab_size": 512, "hidden_size": 64, "intermediate_size": 128,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
            "max_position_embeddings": 2048, "tie_word_embeddings": False,
        },
    ),
}  # fmt: skip


def configuration_values(base: str, option: str) -> ModelShape:
    """The values of a model's config.json without its quantization, because the benchmark's weights are random.

    Args:
        base: the model's folder.
        option: the option that named it, for messages.

    Raises:
        InputError: there is no such file, or it has no model type.
    """
    path = Path(base).expanduser() / "config.json"
    try:
        values: Json = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(
            f"{option} '{base}': there is no {path}: name a model's folder with its config.json, or pass "
            f"--shape {{{','.join(SHAPES)}}}"
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a configuration in JSON ({error}): correct it") from error
    if not isinstance(values, dict) or "model_type" not in values:
        raise InputError(f"{path}: it has no model_type: take the config.json of a transformers model")
    values.pop("quantization_config", None)
    return values


def base_of(files: list[str]) -> str:
    """`model.backend.base` of the last configuration file that sets it.

    Raises:
        InputError: a file can't be read, or none sets it.
    """
    base: str | None = None
    for name in files:
        try:
            values: Json = yaml.safe_load(Path(config_path(name)).expanduser().read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"--config {name}: it can't be read ({reason}): correct it") from error
        for key in ("model", "backend", "init_args", "base"):
            if key == "init_args" and isinstance(values, dict) and "base" in values:
                continue  # a backend may be written without its class
            values = values.get(key) if isinstance(values, dict) else None
        base = values if isinstance(values, str) else base
    if base is None:
        raise InputError(
            f"--config {' '.join(files)}: no file sets model.backend.base: add it, or pass --shape llama-3-8b"
        )
    return base
