"""The speed and memory of this project's own training step, for one case."""

import random
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from medqlora.compat.transformers import attention_implementation
from medqlora.data.batching.packing import StepBatch, deal, step_batch
from medqlora.distributed.collectives import sum_over_processes
from medqlora.errors import InputError
from medqlora.fused import FusedDecoder, unsupported
from medqlora.models import Decoder
from medqlora.models.flops import StepFlops, step_flops
from medqlora.models.host_weights import to_host
from medqlora.models.sharded import ShardedBase, ShardedLayer
from medqlora.models.transformers import checkpoint_activations
from medqlora.planner import Setting, Shape, plan
from medqlora.planner.memory import GIB
from medqlora.profiling.case import Case
from medqlora.profiling.clock import (
    Clock,
    hardware,
    matrix_product_flops,
    peaks,
    reset_peak,
)
from medqlora.profiling.lengths import random_examples
from medqlora.profiling.random_model import add_adapters, build_base
from medqlora.profiling.shares import combined
from medqlora.records import Encoded
from medqlora.training.optim import build_optimizer
from medqlora.training.step_metrics import clip_or_leave_out
from medqlora.utils.distributed_errors import patience, together

#: of weights that aren't quantized, and of the products
DTYPES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16, "32": torch.float32}


def measure(case: Case) -> dict[str, Any]:
    """Speed, memory and utilisation of the case's steps, in this process. Raises as `measure_share`."""
    return combined([measure_share(case)])


def measure_share(case: Case, rank: int = 0) -> dict[str, Any]:
    """What process `rank` of `case.devices` saw of the case's steps; with several, torch's process group is made.

    Raises:
        InputError: the fused engine doesn't run this shape, or the native one is asked for what it hasn't.
        torch.OutOfMemoryError: it takes more memory than there is.
        LostProcessError: another process ended, or doesn't answer.
    """
    device, dtype = torch.device(case.device), DTYPES[case.precision]
    ceiling = matrix_product_flops(device, dtype)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    model, shared = _model(case, rank, device, dtype)
    to_host(model, embedding=case.embedding == "host", head=case.head == "host")
    config = model.get_base_model().config.get_text_config()
    examples = random_examples(
        vocab_size=config.vocab_size, longest=min(config.max_position_embeddings, case.micro_batch_tokens)
    )
    decoder = _decoder(model, shared, case, max(len(one.prompt) + len(one.completion) for one in examples))
    loaded = peaks(device)
    steps = _Steps(model, decoder, shared, case)
    batches = step_batches(
        examples, case.micro_batch_tokens, case.batch_size, case.seed, rank=rank, devices=case.devices
    )
    for _ in range(case.warm_up):
        steps.run(next(batches))
    timed = [next(batches) for _ in range(case.steps)]
    reset_peak(device)
    if case.devices > 1:
        with together():
            torch.distributed.barrier()  # or the first step would count how much later another begins
    clock = Clock(device)
    clock.mark()
    for batch in timed:
        loss = steps.run(batch, clock)
        clock.mark()
    between_s = clock.between_s()
    step_s = [computing + rest for computing, rest in zip(between_s[::2], between_s[1::2], strict=True)]
    flops = step_flops(model)
    return {
        "step_s": step_s,
        "computing_s": between_s[::2],
        "tokens": [batch.all_tokens for batch in timed],
        "flops": sum(_flops(flops, batch) for batch in timed),
        "flops_per_s": ceiling,
        "peaks": peaks(device),
        "planned_gib": _planned_gib(config, case, timed),
        "loaded_gib": next(iter(loaded.values())),
        "loss": loss.item(),
        "attention": _attention(model, case, device, dtype),
        "hardware": hardware(device),
    }


def step_batches(
    examples: list[Encoded],
    micro_batch_tokens: int,
    batch_size: int | None,
    seed: int,
    *,
    rank: int = 0,
    devices: int = 1,
) -> Iterator[StepBatch]:
    """Optimizer steps without end, over the examples in one random order after another.

    Args:
        examples: what is drawn from.
        micro_batch_tokens: the budget of a packed micro-batch.
        batch_size: examples a step for each device; None takes examples until with the next a device would
            pass the budget, so that a step is one full micro-batch on each.
        seed: of the orders.
        rank, devices: whose share of each step.
    """
    generator = random.Random(seed)
    chosen: list[Encoded] = []
    lengths: list[int] = []
    while True:
        for example in generator.sample(examples, len(examples)):
            lengths.append(len(example.prompt) + len(example.completion))
            full = (
                _fullest(lengths, devices) > micro_batch_tokens
                if batch_size is None
                else len(chosen) == batch_size * devices
            )
            if chosen and full:
                yield step_batch(chosen, micro_batch_tokens, rank=rank, world_size=devices)
                chosen, lengths = [], lengths[-1:]
            chosen.append(example)


def _fullest(lengths: Sequence[int], devices: int) -> int:
    """Tokens of the largest share."""
    return max(sum(lengths[index] for index in share) for share in deal(lengths, devices))


class _Steps:
    """Optimizer steps as `QLoRAModule.training_step` takes them: summed loss, one message between processes,
    clipped gradient, 8-bit AdamW.
    """

    def __init__(self, model: Any, decoder: Any, shared: ShardedBase | None, case: Case) -> None:
        self._decoder = decoder
        self._shared = shared
        self._device = torch.device(case.device)
        self._dtype = DTYPES[case.precision]
        self._devices = case.devices
        named = [one for one in model.named_parameters() if one[1].requires_grad]
        self._parameters = [parameter for _, parameter in named]
        # the rate is small: random weights on random texts have nothing to learn
        self._optimizer = build_optimizer("adamw_8bit", named, learning_rate=1e-5, weight_decay=0.0)
        if isinstance(decoder, FusedDecoder):
            decoder.accumulate = True
        self._scaler = torch.amp.GradScaler(self._device.type, enabled=case.precision == "16-mixed")

    def run(self, batch: StepBatch, clock: Clock | None = None) -> Tensor:
        """One step; its loss, on the device. A mark is set where this process has computed its share."""
        total = torch.zeros((), device=self._device)
        for micro in batch.micro_batches:
            mixed = self._dtype != torch.float32
            with torch.autocast(self._device.type, dtype=self._dtype) if mixed else nullcontext():
                loss = self._decoder.loss_sum(micro.to(self._device)) / batch.completion_tokens
            self._scaler.scale(loss).backward()
            total += loss.detach()
        if clock is not None:
            clock.mark()
        if self._shared is not None:
            self._shared.join()  # another may have more micro-batches of this step
        if self._devices > 1:
            total = sum_over_processes(self._optimizer, self._parameters, total[None])[0]
        self._scaler.unscale_(self._optimizer)
        clip_or_leave_out(self._optimizer.param_groups[0]["params"], 1.0, total)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad()
        return total


def _model(case: Case, rank: int, device: torch.device, dtype: torch.dtype) -> tuple[Any, ShardedBase | None]:
    """The case's model with its adapters; where the devices share one, of each layer this one's part alone."""
    if case.strategy == "ddp":
        base = build_base(case.shape, device=device, dtype=dtype, seed=case.seed)
        return add_adapters(base, seed=case.seed), None
    layers: list[ShardedLayer] = []
    base = build_base(
        case.shape,
        device=device,
        dtype=dtype,
        seed=case.seed,
        quantized=lambda layer: layers.append(ShardedLayer(layer, device, rank, case.devices)),
    )
    host = torch.distributed.new_group(backend="gloo", timeout=patience())
    return add_adapters(base, seed=case.seed), ShardedBase(layers, host)


def _decoder(model: Any, shared: ShardedBase | None, case: Case, longest: int) -> Decoder | FusedDecoder:
    kept = case.checkpointing
    if case.trainer == "fused":
        reason = unsupported(model, longest)
        if reason is not None:
            raise InputError(f"--engine fused: it doesn't run this shape ({reason}): use native")
        checkpointing: Any = int(kept) if kept.isdigit() else kept
        layers = model.get_base_model().config.get_text_config().num_hidden_layers
        cached = layers if case.weights == "cached" else 0
        return FusedDecoder(
            model, checkpointing=checkpointing, compile=case.compile, cached=cached, shared=shared
        )
    if case.weights != "nf4":
        raise InputError("--weights cached: the native engine keeps nf4: add --engine fused")
    if kept not in ("full", "none"):
        raise InputError(f"--checkpointing {kept}: the native engine has full and none: add --engine fused")
    if kept == "full":
        checkpoint_activations(model)
    return Decoder(model)


def _planned_gib(config: Any, case: Case, timed: Sequence[StepBatch]) -> float | None:
    """The peak that `medqlora plan` says of the largest of these micro-batches; None where it can't."""
    kept = case.checkpointing
    tokens, rows = max(
        (int(micro.lengths.sum()), len(micro.targets)) for batch in timed for micro in batch.micro_batches
    )
    setting = Setting(
        width=DTYPES[case.precision].itemsize,
        engine="fused" if case.trainer == "fused" else "native",
        checkpointing=int(kept) if kept.isdigit() else kept,  # type: ignore[arg-type]
        embedding=case.embedding,
        head=case.head,
        cached=config.num_hidden_layers if case.weights == "cached" else 0,
        shares=case.devices if case.strategy == "fsdp" else 1,
        tokens=tokens,
        loss_rows=rows,
    )
    try:
        return plan(Shape.of(config), setting).total("fit") / GIB
    except AttributeError:
        return None


def _flops(flops: StepFlops, batch: StepBatch) -> float:
    lengths = [int(length) for micro in batch.micro_batches for length in micro.lengths]
    return flops.step(lengths, batch.completion_tokens)


def _attention(model: Any, case: Case, device: torch.device, dtype: torch.dtype) -> str:
    """Which attention ran."""
    config = model.get_base_model().config
    if case.trainer == "native":
        return f"transformers {attention_implementation(config)}"
    from medqlora.fused.kernels.attention import flash_runs

    text = config.get_text_config()
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return "torch flash, varlen" if flash_runs(device, dtype, width) else "torch sdpa, an example at a time"
