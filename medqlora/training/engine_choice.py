"""Which engine runs a model, and whether its rows are packed: chosen on the model, before the first step."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch

from medqlora.errors import InputError
from medqlora.fused import Checkpointing, FusedDecoder, unsupported
from medqlora.models import Backend, Decoder
from medqlora.models.sharded import ShardedBase
from medqlora.records import Encoded
from medqlora.training.checks.model import check_model, say_untrained, why_padded
from medqlora.training.checks.packing import packing_works
from medqlora.utils.console import say

Engine = Literal["auto", "fused", "native"]
Packing = Literal["auto", "packed", "padded"]
#: the oldest GPUs that the fused engine was tried on; older ones have no bfloat16 and no flash attention
_CAPABILITY = (8, 0)


class EngineChoice(NamedTuple):
    """How a model is run.

    Attributes:
        decoder: runs its training step and scoring.
        packed: whether its rows are packed.
    """

    decoder: Decoder | FusedDecoder
    packed: bool


class FusedSettings(NamedTuple):
    """What the fused engine keeps, and where: see `FusedDecoder`."""

    checkpointing: Checkpointing = "none"
    cached: int = 0


def choose(
    model: Any,
    backend: Backend,
    *,
    engine: Engine,
    fused_settings: Callable[[bool], FusedSettings],
    packing: Packing,
    probe: Sequence[Encoded],
    longest: int,
    device: torch.device,
    agree: Callable[[str | None], str | None] = lambda reason: reason,
    shared: ShardedBase | None = None,
) -> EngineChoice:
    """Chooses, says what in a line, and compares packed rows with single rows of the model's own forward.

    The fused engine, or packing, is left where its rows differ by more than rounding explains.

    Args:
        model: loaded, its adapters in place; the caller has entered its precision.
        backend: that loaded it.
        engine: "fused" is `medqlora.fused`, "native" the model's own forward, "auto" fused where it is known
            to be faster.
        knobs: called once with whether the fused engine is taken; what it then keeps.
        packing: "auto" packs where that makes no difference.
        probe: a few short examples of different lengths.
        longest: tokens of the longest example of all.
        device: where the model is.
        agree: given why this process can't do a thing, or None; returns why one of all processes can't, the same
            in each. GPUs of different kinds may differ, and the processes of a fit are to run one engine.
        shared: where its layers are spread over processes; with it, "fused" is what training there needs.

    Raises:
        InputError: what is asked for can't be run, or gives another result; or the model is no causal language model.
    """
    native = backend.decoder(model)
    if not native.packed_lengths:  # Unsloth's forward gives no logits to compare with
        check_model(model, native, probe, device)
    reason = agree(_not_fused(model, device, engine, packing, longest))
    if reason is not None and engine == "fused":
        raise InputError(
            f"--model.engine fused: not possible here: {reason}: use auto or native"
            if shared is None
            else f"--trainer.strategy fsdp: it needs the fused engine, not possible here: {reason}: use ddp"
        )
    if reason is None:
        chosen = fused_settings(True)
        fused = FusedDecoder(
            model,
            checkpointing=chosen.checkpointing,
            compile=device.type == "cuda",
            cached=chosen.cached,
            shared=shared,
        )
        difference = agree(packing_works(model, fused, native, probe, device))
        if difference is None:
            kept = len(fused.layers) - fused.recomputed
            say(f"Engine: fused; {kept} of {len(fused.layers)} layers keep their activations")
            return EngineChoice(fused, True)
        if engine == "fused":
            raise InputError(
                f"--model.engine fused: its rows differ from the model's own ({difference}): use native"
            )
        reason = f"the fused engine's rows differ from the model's own: {difference}"
    if engine == "auto":
        say(f"Engine: native ({reason})")
    fused_settings(False)
    if shared is None:
        say_untrained(model, native, probe, device)
    return EngineChoice(native, _native_packs(model, native, packing, probe, device, agree))


def _native_packs(
    model: Any,
    native: Decoder,
    packing: Packing,
    probe: Sequence[Encoded],
    device: torch.device,
    agree: Callable[[str | None], str | None],
) -> bool:
    """Whether rows of the model's own forward are packed; the arguments are those of `choose`.

    Raises:
        InputError: packed rows are asked for and not possible.
    """
    if packing == "padded":
        return False
    obstacle = why_padded(native)
    if obstacle is not None and packing == "packed":
        raise InputError(f"--data.packing packed: not possible with this base: {obstacle}: use padded")
    if obstacle is not None:
        say(f"Rows are padded: {obstacle}")
        return False
    return _packs(agree(packing_works(model, native, native, probe, device)), packing)


def _not_fused(
    model: Any, device: torch.device, engine: Engine, packing: Packing, longest: int
) -> str | None:
    """Why the fused engine isn't taken, before its rows are compared; None where it is."""
    if engine == "native":
        return "as asked"
    if packing == "padded":
        return "rows are to be padded"
    if engine == "auto":
        if device.type != "cuda":
            return "the fused engine is for GPUs"
        capability = torch.cuda.get_device_capability(device)
        if capability < _CAPABILITY:
            return f"the GPU's compute capability is {capability[0]}.{capability[1]}"
        if not torch.is_autocast_enabled(device.type):
            return "the precision is 32"
    return unsupported(model, longest)


def _packs(difference: str | None, packing: Packing) -> bool:
    """Whether rows of the model's own forward are packed; says so where they aren't."""
    if difference is not None and packing == "packed":
        raise InputError(
            f"--data.packing packed: this model's packed rows differ from single ones ({difference}): use padded"
        )
    if difference is not None:
        say(f"Rows are padded: this model's packed rows differ from single ones ({difference})")
    return difference is None
