"""Whether vLLM and other servers of PEFT adapters take an adapter folder, and how they are started.

https://docs.vllm.ai/en/stable/features/lora.html
"""

import shlex
from collections.abc import Mapping
from pathlib import Path

from medqlora.errors import InputError

#: ranks that vLLM's --max-lora-rank takes
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)


def lora_rank(config: Mapping[str, object]) -> int:
    """The largest rank of an adapter."""
    patterns = config.get("rank_pattern")
    ranks = [config.get("r"), *(patterns.values() if isinstance(patterns, Mapping) else ())]
    return max(rank for rank in ranks if isinstance(rank, int))


def check_served(config: Mapping[str, object]) -> None:
    """Raises InputError for an adapter that vLLM refuses.

    Args:
        config: adapter_config.json.
    """
    refused = {
        "use_dora": (config.get("use_dora"), "DoRA"),
        "bias": (config.get("bias") not in (None, "none"), "a trained bias"),
        "modules_to_save": (config.get("modules_to_save"), "modules that are trained whole"),
    }
    for key, (found, what) in refused.items():
        if found:
            raise InputError(
                f"--to vllm: adapter_config.json sets {key}, and vLLM takes no adapter with {what}: merge it instead, "
                "with `medqlora merge`"
            )
    rank = lora_rank(config)
    if rank > RANKS[-1]:
        raise InputError(
            f"--to vllm: the adapter's rank is {rank}, and vLLM takes at most {RANKS[-1]}: merge it instead"
        )


def vllm_command(base: str, adapter: Path, name: str, config: Mapping[str, object]) -> str:
    """The command line that serves the adapter."""
    rank = next(limit for limit in RANKS if limit >= lora_rank(config))
    words = [
        "vllm",
        "serve",
        base,
        "--enable-lora",
        "--lora-modules",
        f"{name}={adapter}",
        "--max-lora-rank",
        str(rank),
    ]
    return shlex.join(words)


def decision_file(record: Mapping[str, object], adapter: str) -> dict[str, object]:
    """`decision.json`: labels, temperature and adapter, for servers with typed decisions."""
    calibration = record.get("calibration")
    found = calibration if isinstance(calibration, Mapping) else {}
    return {
        "labels": record.get("labels"),
        "temperature": found.get("temperature", 1.0),
        "threshold": found.get("threshold"),
        "adapter": adapter,
        "prompt": record.get("prompt"),
    }
