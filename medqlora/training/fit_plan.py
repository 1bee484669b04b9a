"""The memory plan of a fit, and the values that it chooses for options that are "auto"."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, NamedTuple, cast

import torch

from medqlora.artifacts.checkpoint import OptimizerFactory
from medqlora.config.data import EVAL_ROWS, DataOptions
from medqlora.config.model import ModelOptions
from medqlora.config.stored_quantization import INT4, Int4Layout, int4_layout
from medqlora.data.batching.budget import DEFAULT_TOKENS
from medqlora.errors import InputError
from medqlora.fused.buckets import LARGEST
from medqlora.inference.decoding.choice import takes_engine
from medqlora.models import Backend, LoRA
from medqlora.models.quantization import stored_config
from medqlora.models.targets import projections
from medqlora.planner import Plan, Setting, Shape, Work, fill, plan, with_budget
from medqlora.planner.fitting import RESERVE, with_cache_in
from medqlora.planner.memory import GIB, GRAPHS_OUTSIDE_BYTES
from medqlora.training.optimizer_names import FLAT_OPTIMIZERS

if TYPE_CHECKING:
    from transformers import PretrainedConfig


class FitPlan(NamedTuple):
    """The plan of a fit.

    Attributes:
        micro_batch_tokens: token budget, as given or chosen.
        setting: what decides the memory.
        plan: bytes by phase and part.
        memory: bytes that the choice had to fit in; None where memory chose nothing.
        work: batches of the fit.
    """

    micro_batch_tokens: int
    setting: Setting
    plan: Plan
    memory: int | None
    work: Work

    def summary(self) -> str:
        """One line."""
        phases = ", ".join(f"{name} {size(self.plan.total(name))}" for name in self.plan.phases)
        room = "" if self.memory is None else f" of {size(self.memory)} free"
        checkpointing = self.setting.checkpointing
        kept = (
            f"{checkpointing} layers are recomputed"
            if isinstance(checkpointing, int)
            else f"checkpointing {checkpointing}"
        )
        if self.setting.cached:
            kept += ", weights kept dequantized"
        if self.setting.graphs:
            kept += ", CUDA graphs"
        return (
            f"Plan: {size(self.plan.peak)}{room} ({phases}); micro-batches of at most "
            f"{self.micro_batch_tokens} tokens, {kept}"
        )


@dataclass(frozen=True)
class FitOptions:
    """The options that a fit's memory depends on.

    Attributes:
        backend, lora, model, data: as the user gave them.
        optimizer: a name, or a factory, which is planned as AdamW.
        micro_batch_tokens: token budget; "auto" to choose one.
        device: the kind of device.
        process: bytes of the process before the base model is loaded; of a cpu.
        stored_width: bytes per weight in the base model's files; of a cpu.
        fusable: whether the fused engine takes the model; of a cpu.
    """

    backend: Backend
    lora: LoRA
    model: ModelOptions
    data: DataOptions
    optimizer: str | OptimizerFactory
    micro_batch_tokens: int | Literal["auto"]
    device: Literal["cuda", "cpu"] = "cuda"
    process: int = 0
    stored_width: int = 2
    fusable: bool = True

    @property
    def graphable(self) -> bool:
        """Whether training steps can run as CUDA graphs: on a GPU, with the head and gradients that stay in place."""
        return self.device == "cuda" and self.optimizer in FLAT_OPTIMIZERS and self.model.head == "device"

    def setting(self, shape: Shape, *, fused: bool, width: int, shards: int) -> Setting:
        """The planner's setting, before anything is chosen by memory."""
        backend, model = self.backend, self.model
        native = getattr(backend, "gradient_checkpointing", False)
        checkpointing = "offload" if native == "unsloth" else "full" if native else "none"
        if fused and model.checkpointing != "auto":
            checkpointing = cast(Literal["none"], model.checkpointing)
        layout = _int4_layout(backend)
        return Setting(
            quantization=getattr(backend, "quantization", "nf4"),
            group_size=layout.group_size,
            act_order=layout.act_order,
            double_quantization=getattr(backend, "double_quantization", True),
            width=width,
            r=self.lora.r,
            targets=projections(self.lora.target_modules),
            optimizer=self.optimizer if isinstance(self.optimizer, str) else "adamw",
            engine="fused" if fused else "native",
            checkpointing=cast(Literal["none", "full", "offload"], checkpointing),
            embedding=model.embedding,
            head=model.head,
            cached=shape.layers if fused and model.weights == "cached" else 0,
            new_tokens=model.max_new_tokens,
            shares=shards,
            device=self.device,
            process=self.process,
            stored_width=self.stored_width,
            decodes=shards == 1 and self._decodes(fused=fused, width=width),
            attention="unsloth" if fused else self._attention(shape),
        )

    def _attention(self, shape: Shape) -> Literal["sdpa", "eager", "flash", "unsloth"]:
        """The native engine's attention; `models.Transformers` chooses "auto" in the same way."""
        backend = self.backend
        if (
            getattr(backend, "gradient_checkpointing", False) == "unsloth"
            or type(backend).__name__ == "Unsloth"
        ):
            return "unsloth"
        given = getattr(backend, "attention", "auto")
        if given == "eager" or (given == "auto" and shape.caps_attention):
            return "eager"
        return "flash" if given == "flash_attention_2" else "sdpa"

    def _decodes(self, *, fused: bool, width: int) -> bool:
        """Whether the decode engine runs the evaluations; `training.engine_choice` decides in the same way."""
        takes = takes_engine(self.model.decoding)
        if fused:
            return takes
        evaluates = self.device == "cpu" and self.fusable and width == 4
        return takes and evaluates and self.model.engine == "auto" and self.data.packing != "padded"


def _int4_layout(backend: Backend) -> Int4Layout:
    """The layout of a GPTQ or AWQ base; the usual one where its files are of another kind, or can't be read here."""
    with suppress(InputError):
        if getattr(backend, "quantization", None) in INT4 and (stored := stored_config(backend.config())):
            return int4_layout(stored, backend.base)
    return Int4Layout("gptq", 128, 1)


def plan_fit(
    shape: Shape,
    options: FitOptions,
    lengths: Sequence[tuple[int, int]],
    *,
    fused: bool,
    width: int,
    memory: int | None,
    devices: int = 1,
    shards: int = 1,
    questions: Sequence[int] = (),
) -> FitPlan:
    """Plans a fit; memory decides what is "auto".

    Args:
        shape: of the base model.
        options: of the fit.
        lengths: (prompt, completion) of each training example, in tokens.
        fused: whether the fused engine runs it.
        width: bytes of a value in the matrix products.
        memory: bytes that torch may allocate; None plans "auto" without a limit, by the defaults.
        devices: GPUs that share each step.
        shards: GPUs that share one base model; 1 where each has a copy.
        questions: tokens of the prompt of each validation question; none for those of the examples.
    """
    model, data = options.model, options.data
    setting = options.setting(shape, fused=fused, width=width, shards=shards)
    rows = None if data.eval_batch_size == "auto" else data.eval_batch_size
    # on a GPU the cache takes what the rest leaves, and a text at least
    limit = data.eval_memory
    known = memory is not None or limit is not None
    chosen = model.generate and setting.decodes and setting.device == "cuda" and known
    least = (1 if chosen else EVAL_ROWS) if rows is None else rows
    work = Work(lengths, data.batch_size, least if model.generate else 0, data.seed, devices, questions)
    budget = None if options.micro_batch_tokens == "auto" else options.micro_batch_tokens
    if memory is None:
        budget = budget or DEFAULT_TOKENS
        setting = with_budget(setting, work, budget)
    else:
        budget, setting = fill(
            shape,
            setting,
            work,
            memory,
            micro_batch_tokens=budget,
            checkpointing=fused and model.checkpointing == "auto",
            weights=fused and model.weights == "auto" and shards == 1,
        )
    if fused and width == 2 and model.graphs == "auto" and shards == 1 and options.graphable:
        with_graphs = replace(setting, graphs=setting.tokens <= LARGEST)
        if memory is None or plan(shape, with_graphs).peak + GRAPHS_OUTSIDE_BYTES <= memory:
            setting = with_graphs
    if chosen and (rows is None or limit is not None):
        setting = with_cache_in(shape, setting, work, memory, rows=rows, limit=limit)
    return FitPlan(budget, setting, plan(shape, setting), memory, work)


def usable_memory(device: torch.device) -> int | None:
    """Bytes that torch may allocate on a GPU, without other processes' share and a reserve; None on a CPU."""
    if device.type != "cuda":
        return None
    free, total = torch.cuda.mem_get_info(device)
    return int(free + torch.cuda.memory_reserved(device) - RESERVE * total)


def stored_width(config: "PretrainedConfig") -> int:
    """Bytes per weight in the base model's files: of 4-bit files less than one, counted as one."""
    if getattr(config, "quantization_config", None) is not None:
        return 1
    dtype = getattr(config, "dtype", None)
    return dtype.itemsize if isinstance(dtype, torch.dtype) else 2


def size(value: float) -> str:
    """Bytes as text."""
    return f"{value / GIB:.2f} GiB" if value >= GIB / 10 else f"{value / 2**20:.1f} MiB"
