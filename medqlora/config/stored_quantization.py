"""The quantization that a base model's own files have, from the `quantization_config` of its config.json.

One real example, of a GPTQ base:

    {"bits": 4, "group_size": 128, "desc_act": true, "sym": true, "quant_method": "gptq", "checkpoint_format": "gptq"}

and of an AWQ base:

    {"bits": 4, "group_size": 128, "zero_point": true, "quant_method": "awq", "version": "gemm"}
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from medqlora.errors import InputError

#: methods whose files this project reads by itself (`models.int4`)
INT4 = ("gptq", "awq")
_DENSE = "its 16-bit version with --model.backend.quantization nf4"


@dataclass(frozen=True)
class Int4Layout:
    """How 4-bit integer weights lie in the files.

    Attributes:
        method: gptq or awq.
        group_size: input columns that share a scale and a zero point; -1 for all of them.
        zero_offset: added to a stored zero point: 1 in GPTQ's first format, else 0.
        act_order: GPTQ's `desc_act`: the groups' inputs are no neighbours.
    """

    method: Literal["gptq", "awq"]
    group_size: int
    zero_offset: int
    act_order: bool = False


def stored_method(stored: Mapping[str, object] | None) -> str | None:
    """The method of a `quantization_config`: nf4, fp4, int8, gptq, awq, another's name; None for none.

    Args:
        stored: the mapping in config.json; None where there is none.
    """
    if stored is None:
        return None
    if stored.get("load_in_4bit") or stored.get("_load_in_4bit"):
        return str(stored.get("bnb_4bit_quant_type", "fp4"))
    if stored.get("load_in_8bit") or stored.get("_load_in_8bit"):
        return "int8"
    return str(stored.get("quant_method", "unknown"))


def int4_layout(stored: Mapping[str, object], base: str) -> Int4Layout:
    """The layout of a GPTQ or AWQ base.

    Args:
        stored: its `quantization_config`; the method is one of `INT4`.
        base: for messages.

    Raises:
        InputError: another number of bits, or a layout made for one library's kernels.
    """
    method: Literal["gptq", "awq"] = "gptq" if stored_method(stored) == "gptq" else "awq"
    where = f"--model.backend.base: the files of '{base}' are {method.upper()}"
    bits = stored.get("bits", stored.get("w_bit", 4))
    if str(bits) != "4":
        raise InputError(f"{where} in {bits} bits, and 4 are read: take its 4-bit version, or {_DENSE}")
    packed = stored.get("pack_dtype", "int32")
    if packed != "int32":
        raise InputError(f"{where} packed as {packed}, and int32 is read: take another copy, or {_DENSE}")
    size = stored.get("group_size", stored.get("q_group_size", 128))
    if not isinstance(size, int) or isinstance(size, bool) or (size != -1 and (size < 2 or size % 2)):
        raise InputError(
            f"{where} with group_size {size}: it has to be -1 or an even number: correct config.json"
        )
    known: tuple[str, ...]
    if method == "gptq":
        kind = str(stored.get("checkpoint_format") or stored.get("format") or "gptq").lower()
        kind = "marlin" if stored.get("is_marlin_format") else kind
        known = ("gptq", "gptq_v2")
    else:
        kind = str(stored.get("version") or stored.get("format") or "gemm").lower()
        known = ("gemm",)
    if kind not in known:
        raise InputError(
            f"{where} in the layout {kind}, and {' and '.join(known)} can be read: take the version in that layout, or "
            f"{_DENSE}"
        )
    return Int4Layout(method, size, 1 if kind == "gptq" else 0, size != -1 and bool(stored.get("desc_act")))


def check_stored(
    stored: Mapping[str, object] | None, base: str, quantization: object, taken: tuple[str, ...]
) -> None:
    """Refuses a base whose files are quantized in another way than the option says, or in a way that can't be read.

    Args:
        stored: the base's `quantization_config`.
        base: for messages.
        quantization: `--model.backend.quantization`.
        taken: the values that the backend takes.

    Raises:
        InputError: names the option, the value and the fix.
    """
    method = stored_method(stored)
    if stored is not None and method in INT4:
        int4_layout(stored, base)
    if method == quantization or (method is None and quantization not in INT4):
        return
    if method is None:
        raise InputError(
            f"--model.backend.quantization {quantization}: the files of '{base}' are not quantized, and bases are not "
            f"quantized to {str(quantization).upper()} here: use nf4, or name the base's {str(quantization).upper()} "
            "version"
        )
    fix = "use a base that isn't quantized, or one quantized by bitsandbytes, GPTQ or AWQ"
    if method in taken:
        fix = f"pass --model.backend.quantization {method}"
    elif method in ("fp4", "int8", *INT4):
        fix = f"add --config configs/no_unsloth.yaml --model.backend.quantization {method}"
    raise InputError(
        f"--model.backend.quantization {quantization}: the files of '{base}' are quantized already, as {method}: {fix}"
    )


def read_stored(folder: Path) -> dict[str, object] | None:
    """The `quantization_config` in a folder's config.json; None where there is none, or it can't be read."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    stored = config.get("quantization_config") if isinstance(config, dict) else None
    return stored if isinstance(stored, dict) else None
