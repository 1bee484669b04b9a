"""The engine that runs a model, and whether its rows are packed: chosen on the loaded model, before the first step."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import nn

from medqlora.config.data import Packing
from medqlora.config.model import Engine
from medqlora.errors import InputError
from medqlora.fused import FusedDecoder, unsupported
from medqlora.models import Backend, Decoder
from medqlora.models.sharded import ShardedBase
from medqlora.records import Encoded
from medqlora.training.checks.model import check_model, say_untrained, why_padded
from medqlora.training.checks.packing import packing_works
from medqlora.training.fit_plan import FitPlan
from medqlora.utils.console import say

#: oldest GPUs that the fused engine was tested on; older ones have no bfloat16 and no flash attention
_CAPABILITY = (8, 0)
#: makes one answer of those of all processes: the first reason against, or None
Agree = Callable[[str | None], str | None]


class EngineChoice(NamedTuple):
    """How a model is run.

    Attributes:
        decoder: runs the training step and the scoring.
        packed: whether a row holds several examples.
        planned: memory plan of the fit; None in an evaluation, and for a shape that the planner does not know.
    """

    decoder: Decoder | FusedDecoder
    packed: bool
    planned: FitPlan | None = None


class Candidate(NamedTuple):
    """The model that an engine is chosen for.

    Attributes:
        model: loaded, its adapters in place; the caller has entered its precision.
        backend: has loaded it.
        device: where it lies.
        probe: a few short examples of different lengths.
        longest: tokens of the longest example of all.
        shared: its layers where processes share them; training there needs the fused engine.
    """

    model: nn.Module
    backend: Backend
    device: torch.device
    probe: Sequence[Encoded]
    longest: int
    shared: ShardedBase | None = None


def prepare_engine(
    candidate: Candidate,
    *,
    engine: Engine,
    packing: Packing,
    plan: Callable[[bool], FitPlan | None] = lambda fused: None,
    agree: Agree = lambda reason: reason,
) -> EngineChoice:
    """Chooses the engine, and tells the user which.

    The fused engine, or packing, is left out where its rows differ from the model's own by more than rounding.

    Args:
        candidate: the model.
        engine: "fused" is `medqlora.fused`, "native" the model's own forward, "auto" the fused engine where it is
            known to be faster.
        packing: "auto" packs where that makes no difference.
        plan: called once with whether the fused engine is taken; plans the fit's memory.
        agree: GPUs of different kinds may differ, and all processes of a fit have to run the same engine.

    Raises:
        InputError: an explicit option is not possible or changes the result; or the model is no causal language model.
    """
    model, backend, device, probe = candidate[:4]
    native = backend.decoder(model)
    if not native.packed_lengths:  # Unsloth's forward gives no logits to compare with
        check_model(model, native, probe, device)
    reason = agree(_not_fused(candidate, engine, packing))
    if reason is not None and engine == "fused":
        raise InputError(
            f"--model.engine fused: not possible here: {reason}: use auto or native"
            if candidate.shared is None
            else f"--trainer.strategy fsdp: it needs the fused engine, not possible here: {reason}: use ddp"
        )
    if reason is None:
        planned = plan(True)
        fused = _fused_decoder(candidate, planned)
        difference = agree(packing_works(model, fused, native, probe, device))
        if difference is None:
            kept = len(fused.layers) - fused.recomputed
            say(f"Engine: fused; {kept} of {len(fused.layers)} layers keep their activations")
            return EngineChoice(fused, True, planned)
        if engine == "fused":
            raise InputError(
                f"--model.engine fused: its rows differ from the model's own ({difference}): use native"
            )
        reason = f"the fused engine's rows differ from the model's own: {difference}"
    if engine == "auto":
        say(f"Engine: native ({reason})")
    planned = plan(False)
    if candidate.shared is None:
        say_untrained(model, native, probe, device)
    return EngineChoice(native, _native_packs(candidate, native, packing, agree), planned)


def _fused_decoder(candidate: Candidate, planned: FitPlan | None) -> FusedDecoder:
    return FusedDecoder(
        candidate.model,
        checkpointing="none" if planned is None else planned.setting.checkpointing,
        compile=candidate.device.type == "cuda",
        cached=0 if planned is None else planned.setting.cached,
        shared=candidate.shared,
    )


def _not_fused(candidate: Candidate, engine: Engine, packing: Packing) -> str | None:
    """Returns why the fused engine is not taken, before its rows are compared; None where it is."""
    device = candidate.device
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
    return unsupported(candidate.model, candidate.longest)


def _native_packs(candidate: Candidate, native: Decoder, packing: Packing, agree: Agree) -> bool:
    """Returns whether rows of the model's own forward are packed, and tells the user where they are not.

    Raises:
        InputError: packed rows are asked for and not possible.
    """
    if packing == "padded":
        return False
    obstacle = why_padded(native)
    if obstacle is not None:
        if packing == "packed":
            raise InputError(f"--data.packing packed: not possible with this base: {obstacle}: use padded")
        say(f"Rows are padded: {obstacle}")
        return False
    difference = agree(packing_works(candidate.model, native, native, candidate.probe, candidate.device))
    if difference is None:
        return True
    if packing == "packed":
        raise InputError(
            f"--data.packing packed: this model's packed rows differ from single ones ({difference}): use padded"
        )
    say(f"Rows are padded: this model's packed rows differ from single ones ({difference})")
    return False
