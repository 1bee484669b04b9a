"""An adapter as a GGUF file of its own, for a base GGUF that the user already has."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from medqlora.artifacts.gguf.architecture import gguf_name, permuted, shape_of, tensor_names
from medqlora.artifacts.gguf.writing import write_metadata, write_origin
from medqlora.artifacts.merge.lora_update import LoRAUpdate
from medqlora.artifacts.origin import Origin
from medqlora.errors import InputError
from medqlora.models import hub
from medqlora.utils.files import flush


def write_gguf_adapter(
    update: LoRAUpdate,
    base: str,
    path: Path,
    metadata: Mapping[str, str | list[str]],
    origin: Origin | None = None,
) -> None:
    """Writes LoRA weights in float32.

    llama.cpp adds (alpha / rank) B A to a weight. Here alpha is 1, and B carries the whole scale: rsLoRA and
    `alpha_pattern` have scales of their own.

    Args:
        update: the adapter.
        base: base model's name or folder, for its configuration.
        path: the file; written aside and renamed.
        metadata: further keys of the file.
        origin: the base model, for `general.license` and `general.base_model.*`.

    Raises:
        InputError: GGUF can't hold this adapter.
    """
    import gguf

    if any(lora.magnitude is not None for lora in update.modules.values()):
        raise InputError("--to gguf-lora: llama.cpp has no DoRA: export --to gguf, which merges it")
    if update.replaced:
        raise InputError(
            f"--to gguf-lora: the adapter replaces {next(iter(update.replaced))}, which a LoRA file can't: export --to "
            "gguf"
        )
    shape = shape_of(hub.load_config(base), base)
    names = tensor_names(shape)
    aside = path.with_name(f".{path.name}.part")
    writer = gguf.GGUFWriter(aside, shape.architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, 1.0)
    writer.add_name(path.stem)
    write_metadata(writer, metadata)
    write_origin(writer, origin)
    for module, lora in update.modules.items():
        b = lora.b * (lora.scale * len(lora.a))
        if shape.interleaved and module.endswith((".q_proj", ".k_proj")):
            b = permuted(b, shape.heads if module.endswith(".q_proj") else shape.key_value_heads)
        name = gguf_name(names, f"{module}.weight")
        for part, tensor in (("lora_a", lora.a), ("lora_b", b)):
            values: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = tensor.float().contiguous().numpy()
            writer.add_tensor(f"{name}.{part}", values)
    writer.write_header_to_file(aside)
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.flush()
    writer.close()
    flush(aside)
    aside.replace(path)
