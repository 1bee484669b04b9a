"""Merging a whole model in host memory, for architectures whose files can't be merged tensor by tensor.

transformers renames or joins the tensors of some files (the experts of a mixture). Such a base is loaded in 16 or 32
bits, and each weight that the live model quantizes takes the values that quantization gives it.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import safe_open

from medqlora.artifacts.merge.base_weights import requantized
from medqlora.artifacts.merge.live_model import LiveBase, left_unquantized, quantized_modules
from medqlora.artifacts.merge.merging import Merged, MergeOptions, check_overflow
from medqlora.artifacts.merge.precision import RoundingError
from medqlora.artifacts.merge.shards import ShardedFolder
from medqlora.errors import InputError
from medqlora.models import hub
from medqlora.models.layers import experts, is_conv1d, is_falcon, linear_layers
from medqlora.models.loading import load_bare
from medqlora.models.quantization import Quantization, bitsandbytes_config, stored_quantization
from medqlora.models.transformers import skeleton
from medqlora.utils.files import disk_errors_of_rust

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@torch.no_grad()
def give_live_values(model: "PreTrainedModel", base: LiveBase) -> None:
    """Rounds the weights of an unquantized model to those that the live model multiplies with, in place.

    Args:
        model: the base model, loaded without quantization on the host.
        base: how the live model holds it.
    """
    if base.quantization == "none":
        return
    names = quantized_modules(model, vision=base.vision)
    four_bits = base.quantization != "int8"
    for name, module in model.named_modules():
        if name in names:
            weight = module.get_parameter("weight")
            matrix = weight.T if is_conv1d(module) else weight  # bitsandbytes' layers hold [out, in]
            values = requantized(
                matrix.to(base.dtype).contiguous(), base.quantization, base.double_quantization
            )
            weight.copy_(values.T if is_conv1d(module) else values)
    if not four_bits:
        return  # what this project quantizes by itself has 4 bits alone
    own = [module.get_parameter("weight") for module in linear_layers(model).values() if is_falcon(module)]
    for parameter in [*own, *(expert.parameter for expert in experts(model))]:
        values = requantized(
            parameter.to(base.dtype).contiguous(), base.quantization, base.double_quantization
        )
        parameter.copy_(values.reshape(parameter.shape))


def merge_model(model: "PreTrainedModel", base: LiveBase, adapter: Path) -> "PreTrainedModel":
    """The model with the adapter merged into the live model's values.

    Args:
        model: the base model, loaded without quantization on the host. It is changed.
        base: how the live model holds it.
        adapter: folder in PEFT's format.
    """
    from peft import PeftModel

    give_live_values(model, base)
    wrapped = PeftModel.from_pretrained(model, str(adapter))
    merged: PreTrainedModel = wrapped.merge_and_unload()
    return merged


@torch.no_grad()
def merge_as_model(
    base: LiveBase,
    adapter: Path,
    folder: ShardedFolder,
    options: MergeOptions,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Merged:
    """Writes the merged weights into `folder.partial`, through transformers' own `save_pretrained`.

    The model is in host memory as a whole, in float32: 4 bytes a parameter. A killed process begins again.

    Args:
        base: how the live model holds its base model.
        adapter: folder in PEFT's format.
        folder: where the files go.
        options: how the weights are stored.
        progress: called with the number of finished steps and of all.

    Raises:
        InputError: the base model's files are quantized, or float16 was asked for and a weight overflows it.
        OSError: the disk is full.
    """
    stored = stored_quantization(hub.load_config(base.name, base.revision))
    if stored is not None:
        raise InputError(
            f"--base: the files of '{base.name}' are quantized ({stored}), and this architecture is merged from 16-bit "
            "files only: pass --onto with the folder of the 16-bit model"
        )
    progress(0, 3)
    loaded = load_bare(
        base.name,
        base.revision,
        auto_class=base.auto_class,
        dtype=torch.float32,
        device_map={"": torch.device("cpu")},
    )
    progress(1, 3)
    merged = merge_model(loaded, base, adapter)
    errors = RoundingError()
    for parameter in merged.parameters():
        errors.add(parameter.data)
    progress(2, 3)
    dtype = errors.better() if options.dtype == "auto" else options.dtype
    check_overflow(options.dtype, errors)
    merged.to(getattr(torch, dtype))
    with disk_errors_of_rust(folder.partial):
        merged.save_pretrained(folder.partial, max_shard_size=options.shard_bytes)
    progress(3, 3)
    return Merged(dtype, changed_by(adapter), errors.relative(dtype), not errors.fits_float16)


def changed_by(adapter: Path) -> int:
    """The number of weights that an adapter changes: its B matrices, and what it replaces."""
    with safe_open(adapter / "adapter_model.safetensors", framework="pt") as file:
        keys = list(file.keys())
    return sum("lora_" not in key or ".lora_B." in key for key in keys)


def quantize_folder(
    folder: Path, kind: Quantization, dtype: str, shard_bytes: int, *, vision: bool = False
) -> None:
    """Quantizes a merged model's weights with bitsandbytes, in place.

    Args:
        folder: a model folder in 16 or 32 bits.
        kind: nf4 or int8.
        dtype: data type of its weights.
        shard_bytes: bytes of a weight file, at most.
        vision: whether it is a vision-language model.

    Raises:
        OSError: the disk is full.
    """
    auto_class = LiveBase(str(folder), None, kind, True, torch.float32, vision).auto_class
    modules = skeleton(hub.load_config(str(folder)), str(folder), auto_class)
    left = left_unquantized(modules, vision=vision)
    stored: torch.dtype = getattr(torch, dtype)
    model = load_bare(
        str(folder),
        None,
        auto_class=auto_class,
        dtype=stored,
        device_map={"": torch.device("cpu")},
        quantization_config=bitsandbytes_config(kind, True, stored, skip=left),
    )
    shutil.rmtree(folder / "quantized", ignore_errors=True)
    with disk_errors_of_rust(folder):
        model.save_pretrained(folder / "quantized", max_shard_size=shard_bytes)
    for file in [*folder.glob("model*.safetensors"), *folder.glob("*.index.json")]:
        file.unlink()
    for file in (folder / "quantized").iterdir():
        file.replace(folder / file.name)
    (folder / "quantized").rmdir()
    hub.clear_caches()  # its configuration has changed
