"""`merge_adapter`: base model and adapter become one model folder in 16 or 32 bits.

The default base is the *dequantized* one: the values that the adapter was trained on. On the original 16-bit weights
the same update gives another model.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from medqlora.artifacts.merge.base_weights import BaseWeights, OpenWeights
from medqlora.artifacts.merge.lora_update import LoRAUpdate
from medqlora.artifacts.merge.precision import RoundingError
from medqlora.artifacts.merge.shards import ShardedFolder, shard_name, shards_of, write_index
from medqlora.errors import InputError

DType = Literal["auto", "float16", "bfloat16", "float32"]


@dataclass(frozen=True)
class MergeOptions:
    """How the merged weights are stored.

    Attributes:
        dtype: "auto" is float16 unless a weight overflows it or bfloat16's rounding error is smaller.
        shard_bytes: bytes of a weight file, at most.
        quantize: how bitsandbytes quantizes the merged weights; None for not at all.
    """

    dtype: DType = "auto"
    shard_bytes: int = 1 << 30
    quantize: Literal["nf4", "int8"] | None = None


class Merged(NamedTuple):
    """What was written.

    Attributes:
        dtype: data type of the weights.
        changed: number of weights that the adapter changed.
        relative_error: rounding error over the weights' norm.
        overflowed: float16 was left because a weight is larger than 65,504.
    """

    dtype: str
    changed: int
    relative_error: float
    overflowed: bool


def merge_adapter(
    base: BaseWeights,
    update: LoRAUpdate,
    folder: ShardedFolder,
    options: MergeOptions,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Merged:
    """Writes the merged weights and their index into `folder.partial`; the caller adds the other files and finishes.

    Args:
        base: the base model's weights.
        update: the adapter's.
        folder: where the shards go; those that a killed process has finished are kept.
        options: how they are stored.
        progress: called with the number of finished tensors and of all.

    Raises:
        InputError: the adapter changes a weight that the base model does not have, or of another shape; or float16 was
            asked for and a weight overflows it.
    """
    _check_names(base, update)
    if options.dtype != "auto":
        errors = _write(base, update, folder, options.dtype, options.shard_bytes, progress)
        check_overflow(options.dtype, errors)
        return _merged_as(options.dtype, update, errors)
    if folder.dtype is None:
        errors = _write(base, update, folder, "float16", options.shard_bytes, progress)
        folder.decide(errors.better())
    if folder.dtype == "bfloat16":  # rounded another way, every shard is another one
        errors = _write(base, update, folder, "bfloat16", options.shard_bytes, progress)
    else:
        errors = RoundingError(folder.figures())
    return _merged_as(str(folder.dtype), update, errors)


def check_overflow(dtype: DType, errors: RoundingError) -> None:
    """Raises InputError where float16 was asked for and can't hold a weight."""
    if dtype == "float16" and not errors.fits_float16:
        raise InputError(
            "--dtype float16: a merged weight is larger than 65,504, which float16 can't hold: use bfloat16 or auto"
        )


def _merged_as(dtype: str, update: LoRAUpdate, errors: RoundingError) -> Merged:
    changed = len(update.modules) + len(update.replaced)
    return Merged(dtype, changed, errors.relative(dtype), not errors.fits_float16)


def _check_names(base: BaseWeights, update: LoRAUpdate) -> None:
    needed = [*(f"{module}.weight" for module in update.modules), *update.replaced]
    missing = [name for name in needed if name not in base.shapes]
    if missing:
        raise InputError(
            f"--adapter: it changes {missing[0]}, which the base model's files don't hold ({len(missing)} of "
            f"{len(needed)} are missing): it belongs to another base model"
        )


def _write(
    base: BaseWeights,
    update: LoRAUpdate,
    folder: ShardedFolder,
    dtype: str,
    shard_bytes: int,
    progress: Callable[[int, int], None],
) -> RoundingError:
    """Writes the shards that are not finished, and the index; the rounding error of all of them."""
    stored: torch.dtype = getattr(torch, dtype)
    shards = shards_of(base.shapes, stored.itemsize, shard_bytes)
    done = 0
    with base.opened() as weights:
        for number, names in enumerate(shards):
            file = shard_name(number, len(shards))
            if folder.is_done(file, dtype):
                done += len(names)
                progress(done, len(base.shapes))
                continue
            errors = RoundingError()
            tensors: dict[str, Tensor] = {}
            for name, merged in _merged(weights, update, names):
                errors.add(merged)
                tensors[name] = merged.to(stored).contiguous()
                done += 1
                progress(done, len(base.shapes))
            folder.write(file, tensors, dtype, errors.figures)
    write_index(folder.partial, shards)
    return RoundingError(folder.figures())


def _merged(weights: OpenWeights, update: LoRAUpdate, names: list[str]) -> Iterator[tuple[str, Tensor]]:
    """(name, merged weight) of each name; what the adapter leaves alone is given as the base model has it."""
    for name in names:
        module = name.removesuffix(".weight")
        if name in update.replaced:
            yield name, update.replaced[name]
        elif name.endswith(".weight") and module in update.modules:
            yield name, update.apply(module, weights.read(name).float())
        else:
            yield name, weights.read(name)
