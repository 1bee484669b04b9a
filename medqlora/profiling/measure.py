"""The speed and memory of this project's own training step, for one case."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh

from medqlora.compat.transformers import attention_implementation
from medqlora.config.model import StepOptions
from medqlora.data.batching.packing import StepBatch, deal, step_batch
from medqlora.distributed.collectives import sum_over_processes
from medqlora.errors import InputError
from medqlora.fused import Checkpointing, FusedDecoder, StepGraphs, unsupported, why_no_graphs
from medqlora.fused.buckets import LARGEST
from medqlora.fused.kernels.attention import flash_runs
from medqlora.fused.modules import text_config
from medqlora.models import Decoder
from medqlora.models.flops import StepFlops, step_flops
from medqlora.models.host_weights import to_host
from medqlora.models.layers import base_model, decoder_layers
from medqlora.models.precision import DTYPES
from medqlora.models.sharded import ShardedBase, gather_in_forward
from medqlora.models.sharded_layer import ShardedLayer
from medqlora.models.transformers import checkpoint_activations
from medqlora.models.weight_shares import SHARD, packed_weights
from medqlora.planner import Setting, Shape, plan
from medqlora.planner.memory import GIB
from medqlora.profiling.case import Case
from medqlora.profiling.clock import Clock, hardware, matrix_product_flops, peaks, reset_peak
from medqlora.profiling.figures import Figures, Share, combined, used_gib
from medqlora.profiling.lengths import random_examples
from medqlora.profiling.random_model import add_adapters, build_base
from medqlora.records import Encoded
from medqlora.training.optim import build_optimizer
from medqlora.training.step import TorchDriver, TrainStep
from medqlora.utils.distributed_errors import patience, together

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PretrainedConfig

_CHECKPOINTING: dict[str, Checkpointing] = {"none": "none", "full": "full", "offload": "offload"}


def measure(case: Case) -> Figures:
    """Speed, memory and utilisation of the case's steps, in this process. Raises as `measure_share`."""
    return combined([measure_share(case)])


def measure_share(case: Case, rank: int = 0) -> Share:
    """The measurements of process `rank` of `case.devices`; several need torch's process group.

    Raises:
        InputError: the case's engine can't run this shape or this setting.
        torch.OutOfMemoryError: the case needs more memory than there is.
        LostProcessError: another process ended, or doesn't answer.
    """
    device, dtype = torch.device(case.device), DTYPES[case.precision]
    ceiling = matrix_product_flops(device, dtype)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    model, shared = _model(case, device, dtype)
    to_host(model, embedding=case.embedding == "host", head=case.head == "host")
    config = text_config(model)
    examples = random_examples(
        vocab_size=config.vocab_size, longest=min(config.max_position_embeddings, case.micro_batch_tokens)
    )
    longest = max(len(example.prompt) + len(example.completion) for example in examples)
    decoder = _decoder(model, shared, case, longest)
    loaded = peaks(device)
    source = step_batches(
        examples, case.micro_batch_tokens, case.batch_size, case.seed, rank=rank, devices=case.devices
    )
    batches = list(islice(source, case.warm_up + case.steps))
    graphed = isinstance(decoder, FusedDecoder) and _use_graphs(decoder, case, batches)
    clock = Clock(device)
    train = _train_step(model, decoder, shared, case, clock)
    # every size of micro-batch is captured before its time is taken
    for batch in batches if graphed else batches[: case.warm_up]:
        train.step(batch)
    timed = batches[case.warm_up :]
    reset_peak(device)
    if case.devices > 1:
        with together():
            torch.distributed.barrier()  # the first step must not include the others' delay
    computing_s, step_s, loss = _time(train, timed, clock)
    flops = step_flops(model)
    return {
        "step_s": step_s,
        "computing_s": computing_s,
        "tokens": [batch.all_tokens for batch in timed],
        "flops": sum(_flops(flops, batch) for batch in timed),
        "flops_per_s": ceiling,
        "peaks": peaks(device),
        "planned_gib": _planned_gib(config, case, timed, graphs=graphed),
        "loaded_gib": used_gib(loaded),
        "loss": loss,
        "attention": _attention(model, case, device, dtype),
        "hardware": hardware(device),
    }


def _time(
    train: TrainStep, batches: Sequence[StepBatch], clock: Clock
) -> tuple[list[float], list[float], float]:
    """Seconds of each step up to this process's own gradients, seconds of each step, and the last loss.

    `train` sets a mark in each step when it has computed the gradients; here are the marks between steps.
    """
    clock.restart()
    clock.mark()
    for batch in batches:
        loss = train.step(batch).loss
        clock.mark()
    between_s = clock.between_s()
    step_s = [computing + rest for computing, rest in zip(between_s[::2], between_s[1::2], strict=True)]
    return between_s[::2], step_s, loss.item()


def step_batches(
    examples: list[Encoded],
    micro_batch_tokens: int,
    batch_size: int | None,
    seed: int,
    *,
    rank: int = 0,
    devices: int = 1,
) -> Iterator[StepBatch]:
    """An endless sequence of optimizer steps over the examples, in a new random order for each pass.

    Args:
        examples: the training set.
        micro_batch_tokens: the budget of a packed micro-batch.
        batch_size: examples per step and device; None fills each step until one more example would exceed a
            device's budget, so that a step is one full micro-batch on each device.
        seed: of the orders.
        rank, devices: select this process's share of each step.
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
    """Tokens of the device with the most."""
    return max(sum(lengths[index] for index in share) for share in deal(lengths, devices))


def _train_step(
    model: "PeftModel", decoder: Decoder | FusedDecoder, shared: ShardedBase | None, case: Case, clock: Clock
) -> TrainStep:
    """The training step of `medqlora fit`, with a mark of the clock when this process has its gradients."""
    device, dtype = torch.device(case.device), DTYPES[case.precision]
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    # a low rate: there is nothing to learn from random weights and tokens
    options = StepOptions(learning_rate=1e-5)
    optimizer = build_optimizer(
        "adamw_8bit", named, learning_rate=options.learning_rate, weight_decay=options.weight_decay
    )

    def finish() -> None:
        clock.mark()
        if shared is not None:
            shared.join()  # another process may have more micro-batches of this step

    def reduce(loss: Tensor) -> Tensor:
        if case.devices == 1:
            return loss
        return sum_over_processes(optimizer, [parameter for _, parameter in named], loss[None])[0]

    driver = TorchDriver(device, dtype)
    return TrainStep(decoder, optimizer, options, device=device, driver=driver, finish=finish, reduce=reduce)


def _model(case: Case, device: torch.device, dtype: torch.dtype) -> tuple["PeftModel", ShardedBase | None]:
    """The case's model with its adapters, and its sharded layers with strategy "fsdp"."""
    if case.strategy == "ddp":
        base = build_base(case.shape, device=device, dtype=dtype, seed=case.seed)
        return add_adapters(base, seed=case.seed), None
    layers: list[ShardedLayer] = []
    mesh = init_device_mesh(device.type, (case.devices,), mesh_dim_names=(SHARD,))
    host = torch.distributed.new_group(backend="gloo", timeout=patience())
    base = build_base(
        case.shape,
        device=device,
        dtype=dtype,
        seed=case.seed,
        quantized=lambda layer: layers.append(ShardedLayer(packed_weights(layer), device, mesh, host)),
    )
    model, shared = add_adapters(base, seed=case.seed), ShardedBase(layers, host)
    gather_in_forward(decoder_layers(model), shared)
    return model, shared


def _decoder(
    model: "PeftModel", shared: ShardedBase | None, case: Case, longest: int
) -> Decoder | FusedDecoder:
    kept = case.checkpointing
    if case.trainer == "fused":
        reason = unsupported(model, longest)
        if reason is not None:
            raise InputError(f"--engine fused: it doesn't run this shape ({reason}): use native")
        layers = text_config(model).num_hidden_layers
        cached = layers if case.weights == "cached" else 0
        return FusedDecoder(
            model, checkpointing=_checkpointing(case), compile=case.compile, cached=cached, shared=shared
        )
    if case.weights != "nf4":
        raise InputError("--weights cached: the native engine keeps nf4: add --engine fused")
    if kept not in ("full", "none"):
        raise InputError(f"--checkpointing {kept}: the native engine has full and none: add --engine fused")
    if kept == "full":
        checkpoint_activations(model)
    return Decoder(model)


def _use_graphs(decoder: FusedDecoder, case: Case, batches: Sequence[StepBatch]) -> bool:
    """Runs the steps as CUDA graphs where `medqlora fit` does; whether it does."""
    tokens = max(int(micro.lengths.sum()) for batch in batches for micro in batch.micro_batches)
    if case.graphs == "off" or tokens > LARGEST or why_no_graphs(decoder) is not None:
        return False
    StepGraphs(decoder, tokens)
    return True


def _checkpointing(case: Case) -> Checkpointing:
    return _CHECKPOINTING.get(case.checkpointing) or int(case.checkpointing)


def _planned_gib(
    config: "PretrainedConfig", case: Case, timed: Sequence[StepBatch], *, graphs: bool = False
) -> float | None:
    """The peak that `medqlora plan` computes for the largest of these micro-batches; None if it can't."""
    tokens, rows = max(
        (int(micro.lengths.sum()), len(micro.targets)) for batch in timed for micro in batch.micro_batches
    )
    setting = Setting(
        width=DTYPES[case.precision].itemsize,
        engine="fused" if case.trainer == "fused" else "native",
        checkpointing=_checkpointing(case),
        embedding=case.embedding,
        head=case.head,
        cached=config.num_hidden_layers if case.weights == "cached" else 0,
        graphs=graphs,
        shares=case.devices if case.strategy == "fsdp" else 1,
        tokens=tokens,
        loss_rows=rows,
    )
    try:
        shape = Shape.of(config)
    except AttributeError:
        return None
    if case.trainer == "native":
        setting = replace(setting, attention="eager" if shape.caps_attention else "sdpa")
    return plan(shape, setting).total("fit") / GIB


def _flops(flops: StepFlops, batch: StepBatch) -> float:
    lengths = [int(length) for micro in batch.micro_batches for length in micro.lengths]
    return flops.step(lengths, batch.completion_tokens)


def _attention(model: "PeftModel", case: Case, device: torch.device, dtype: torch.dtype) -> str:
    """The attention implementation that ran."""
    config: PretrainedConfig = base_model(model).config
    if case.trainer == "native":
        return f"transformers {attention_implementation(config)}"

    text = config.get_text_config()
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return "torch flash, varlen" if flash_runs(device, dtype, width) else "torch sdpa, an example at a time"
