"""The engine that runs a model, and whether its rows are packed: chosen on the loaded model, before the first step."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import nn

from medqlora.config.data import Packing
from medqlora.config.model import Decoding, Engine, Weights
from medqlora.errors import InputError
from medqlora.fused import FusedDecoder, StepGraphs, unsupported, why_no_graphs
from medqlora.inference.decoding import DecodeEngine
from medqlora.inference.decoding.choice import (
    CAPABILITY,
    cacheable_layers,
    fused_for_evaluation,
    takes_engine,
    tested_engine,
)
from medqlora.models import Backend, Decoder
from medqlora.models.sharded import ShardedBase
from medqlora.records import Encoded
from medqlora.training.checks.images import check_images, without_images
from medqlora.training.checks.model import check_model, say_untrained, why_padded
from medqlora.training.checks.packing import packing_works
from medqlora.training.fit_plan import FitPlan
from medqlora.utils.console import say

#: makes one answer of those of all processes: the first reason against, or None
Agree = Callable[[str | None], str | None]


class EngineChoice(NamedTuple):
    """How a model is run.

    Attributes:
        decoder: runs the training step and the scoring.
        packed: whether a row holds several examples.
        planned: memory plan of the fit; None in an evaluation, and for a shape that the planner does not know.
        evaluating: scores and generates in an evaluation; None where `decoder` scores, and transformers generates.
    """

    decoder: Decoder | FusedDecoder
    packed: bool
    planned: FitPlan | None = None
    evaluating: DecodeEngine | None = None


class Candidate(NamedTuple):
    """The model that an engine is chosen for.

    Attributes:
        model: loaded, its adapters in place; the caller has entered its precision.
        backend: has loaded it.
        device: where it lies.
        probe: a few short examples of different lengths.
        longest: tokens of the longest example of all.
        shared: its layers where processes share them.
        memory: bytes of a GPU's memory that an evaluation may fill; None for what is free.
    """

    model: nn.Module
    backend: Backend
    device: torch.device
    probe: Sequence[Encoded]
    longest: int
    shared: ShardedBase | None = None
    memory: int | None = None


def prepare_engine(
    candidate: Candidate,
    *,
    engine: Engine,
    packing: Packing,
    plan: Callable[[bool], FitPlan | None] = lambda fused: None,
    agree: Agree = lambda reason: reason,
    weights: Weights = "auto",
    decoding: Decoding = "auto",
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
        weights: of the fused engine where no plan decides, which is in an evaluation.
        decoding: what generates in evaluations.

    Raises:
        InputError: an explicit option is not possible or changes the result; or the model is no causal language model.
    """
    model, backend, device = candidate[:3]
    native = backend.decoder(model)
    probe = _text_probe(candidate, native)
    if not native.packed_lengths:  # Unsloth's forward gives no logits to compare with
        check_model(model, native, probe, device)
    decodes = candidate.shared is None and takes_engine(decoding)
    reason = agree(_not_fused(candidate, native, engine, packing))
    if reason is not None and engine == "fused":
        raise InputError(f"--model.engine fused: not possible here: {reason}: use auto or native")
    if reason is None:
        planned = plan(True)
        fused = _fused_decoder(candidate, planned, weights if decodes else "nf4")
        difference = agree(packing_works(model, fused, native, probe, device))
        if difference is None:
            return _fused_choice(candidate, fused, planned, decodes)
        if engine == "fused":
            raise InputError(
                f"--model.engine fused: its rows differ from the model's own ({difference}): use native"
            )
        reason = f"the fused engine's rows differ from the model's own: {difference}"
    if engine == "auto":
        say(f"Engine: native ({reason})")
    planned = plan(False)
    say_untrained(model, native, candidate.probe, device)
    packed = _native_packs(candidate, native, packing, agree)
    takes = packed and engine == "auto" and decodes
    evaluating = _evaluating(candidate, native, agree) if takes else None
    return EngineChoice(native, packed, planned, evaluating)


def _text_probe(candidate: Candidate, native: Decoder) -> Sequence[Encoded]:
    """The probe without its images, for the checks of the language model; an image was seen to reach the answer."""
    if not native.reads_images:
        return candidate.probe
    check_images(candidate.model, native, candidate.probe, candidate.device)
    return [without_images(example) for example in candidate.probe]


def _fused_choice(
    candidate: Candidate, fused: FusedDecoder, planned: FitPlan | None, decodes: bool
) -> EngineChoice:
    kept = len(fused.layers) - fused.recomputed
    graphs = ""
    if planned is not None and planned.setting.graphs:
        reason = why_no_graphs(fused)
        graphs = "; training steps as CUDA graphs" if reason is None else f"; no CUDA graphs ({reason})"
        if reason is None:
            StepGraphs(fused, planned.setting.tokens)
    say(f"Engine: fused; {kept} of {len(fused.layers)} layers keep their activations{graphs}")
    if decodes:
        return EngineChoice(fused, True, planned, tested_engine(fused))
    return EngineChoice(fused, True, planned)


def _evaluating(candidate: Candidate, native: Decoder, agree: Agree) -> DecodeEngine | None:
    """The fused engine for the evaluations of a model that trains natively: on a CPU, in float32.

    There it dequantizes the weights once, where the native forward does so in each pass. The training keeps the
    native engine, whose rounding its results have.
    """
    device = candidate.device
    if device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return None
    fused = fused_for_evaluation(candidate.model, device, candidate.longest)
    if fused is None:
        return None
    difference = packing_works(candidate.model, fused, native, candidate.probe, device)
    if agree(difference) is not None:
        return None
    say("Evaluations: by the fused engine")
    return DecodeEngine(fused)


def _fused_decoder(candidate: Candidate, planned: FitPlan | None, weights: Weights) -> FusedDecoder:
    if planned is not None:
        cached = planned.setting.cached
    elif candidate.shared is not None or weights == "nf4":
        cached = 0
    else:
        cached = cacheable_layers(candidate.model, candidate.device, candidate.memory)
    return FusedDecoder(
        candidate.model,
        checkpointing="none" if planned is None else planned.setting.checkpointing,
        compile=candidate.device.type == "cuda",
        cached=cached,
        shared=candidate.shared,
    )


def _not_fused(candidate: Candidate, native: Decoder, engine: Engine, packing: Packing) -> str | None:
    """Returns why the fused engine is not taken, before its rows are compared; None where it is."""
    device = candidate.device
    if engine == "native":
        return "as asked"
    if native.reads_images:
        return "rows with images are padded and run in the model's own layers"
    if packing == "padded":
        return "rows are to be padded"
    if engine == "auto":
        if device.type != "cuda":
            return "the fused engine is for GPUs"
        capability = torch.cuda.get_device_capability(device)
        if capability < CAPABILITY:
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
