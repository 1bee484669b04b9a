"""What `medqlora plan` reads: the options, the model's shape and the lengths of the questions."""

import itertools
import random
import re
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from medqlora.commands.diagnosis.hub import hub, hub_off, without_hub
from medqlora.errors import InputError

if TYPE_CHECKING:
    from jsonargparse import Namespace
    from transformers import PretrainedConfig

    from medqlora.data.sources.source import Source
    from medqlora.datamodule import PubMedQADataModule
    from medqlora.models import Backend, LoRA
    from medqlora.module import QLoRAModule
    from medqlora.planner import Shape
    from medqlora.planner.speed import GPU
    from medqlora.training.fit_plan import FitOptions, FitPlan

#: `--trainer.precision` → Lightning's name
_PRECISIONS = {"None": "32", "16": "16-mixed", "bf16": "bf16-mixed"}


class RunBounds(NamedTuple):
    """The options that end a run, with Lightning's defaults."""

    max_epochs: int
    max_steps: int
    limit_train_batches: int | float


class Fit(NamedTuple):
    """The fit to plan.

    Attributes:
        lengths: (prompt, completion) of each training example, in tokens.
        notes: on inputs that are not available here.
        fusable: whether the fused engine can run it.
        engine: `--model.engine`.
        width: bytes per value in the matrix products.
        on_cpu: whether it is planned for a CPU.
        devices: GPUs that share each step, of all machines.
        shards: GPUs that share one base model; 1 where each has a copy.
        steps: of an epoch.
        run_steps: of the run.
    """

    options: "FitOptions"
    shape: "Shape"
    lengths: list[tuple[int, int]]
    notes: list[str]
    fusable: bool
    engine: str
    width: int
    on_cpu: bool
    devices: int
    shards: int
    steps: int
    run_steps: int

    def fused_on(self, gpu: "GPU | None") -> bool:
        """Whether the fused engine would run the fit on this GPU; None for one that is not named."""
        by_itself = not self.on_cpu and self.width == 2 and (gpu is None or gpu.fused)
        return self.fusable and (self.engine == "fused" or by_itself)

    def planned(self, gpu: "GPU | None", room: int | None) -> "FitPlan":
        """The memory plan on this GPU.

        Args:
            gpu: None for one that is not named.
            room: bytes that torch may allocate; None for no limit.
        """
        from medqlora.training.fit_plan import plan_fit

        return plan_fit(
            self.shape,
            self.options,
            self.lengths,
            fused=self.fused_on(gpu),
            width=self.width,
            memory=room,
            devices=self.devices,
            shards=self.shards,
        )

    @property
    def parameters(self) -> tuple[int, int]:
        """(trainable, total) parameters."""
        from medqlora.models.targets import projections

        lora = self.options.lora
        trainable = self.shape.lora_parameters(lora.r, projections(lora.target_modules))
        return trainable, self.shape.base_parameters + trainable

    @property
    def tokens(self) -> int:
        """Tokens of an epoch."""
        return sum(map(sum, self.lengths))

    def epoch_flops(self) -> float:
        """Floating-point operations of an epoch."""
        from medqlora.models.targets import projections

        lora = self.options.lora
        flops = self.shape.flops(lora.r, projections(lora.target_modules))
        return flops.step([sum(pair) for pair in self.lengths], sum(length for _, length in self.lengths))


def read_fit(
    module: "QLoRAModule",
    data: "PubMedQADataModule",
    trainer: "Namespace",
    devices: int | None,
    num_nodes: int | None,
    *,
    for_gpu: bool,
) -> Fit:
    """Checks the options and reads what the plan needs. Without a network the Hub is asked once.

    Args:
        module, data, trainer: of the fit; nothing is read yet.
        devices: GPUs of each machine; None for those of `trainer`.
        num_nodes: machines; None for those of `trainer`.
        for_gpu: whether a GPU, or its memory, is named: then `--trainer.accelerator cpu` does not count.

    Raises:
        InputError: an option is wrong, or the base model can't be planned.
    """
    from medqlora.training.checks.options import DTYPES, check_shared, check_strategy
    from medqlora.training.fit_plan import FitOptions
    from medqlora.utils.run_length import total_steps

    backend, lora, options = module.backend, module.lora, module.options
    precision = _checked_precision(module, data, trainer)
    hub_note = _why_without_hub(backend, data.source)
    with without_hub(hub_note is not None):
        config, base_note = _configuration(backend)
        shape = _shape(backend, config)
        if base_note is None:
            data.images, shape = backend.images(), replace(shape, vision=backend.vision_parameters())
        _check_targets(backend, lora, config)
        lengths, length_note = _lengths(data, backend)
    devices, num_nodes = devices or _devices(trainer), num_nodes or int(trainer["num_nodes"])
    check_strategy(trainer["strategy"])
    shards = _shards(trainer, devices, num_nodes)
    if shards > 1:
        check_shared(backend, options, lora.init)
    on_cpu = trainer["accelerator"] == "cpu" and not for_gpu
    steps = -(-len(lengths) // data.options.batch_size)
    fit_options = FitOptions(backend, lora, options, data.options, module.optimizer, data.micro_batch_tokens)
    fusable = _fusable(module, data, config, longest=max(map(sum, lengths)))
    if on_cpu:
        fit_options = _on_cpu(fit_options, config, fusable=fusable)
    return Fit(
        fit_options,
        shape,
        lengths,
        [note for note in (hub_note, base_note, length_note, _stages_note(data)) if note],
        fusable,
        options.engine,
        DTYPES[precision].itemsize,
        on_cpu,
        devices * num_nodes,
        shards,
        steps,
        total_steps(_bounds(trainer), steps),
    )


def _stages_note(data: "PubMedQADataModule") -> str | None:
    """What the plan leaves out of a training in stages; None without stages."""
    if not data.training_stages:
        return None
    return "data.stages: lengths and steps are those of data.source alone; `fit` plans with all stages"


def _on_cpu(options: "FitOptions", config: "PretrainedConfig", *, fusable: bool) -> "FitOptions":
    """The options with what a CPU's memory depends on."""
    from medqlora.training.fit_plan import stored_width
    from medqlora.utils.host_memory import resident_bytes

    width = stored_width(config)
    return replace(options, device="cpu", process=resident_bytes(), stored_width=width, fusable=fusable)


def _devices(trainer: "Namespace") -> int:
    """`--trainer.devices` as a number; 1 where it names devices."""
    given = str(trainer["devices"])
    return int(given) if given.isdigit() else 1


def _shards(trainer: "Namespace", devices: int, num_nodes: int) -> int:
    """GPUs that share one base model, as `distributed.processes.sharding_groups` has it."""
    if trainer["strategy"] != "fsdp":
        return 1
    return devices if devices > 1 else num_nodes


def _checked_precision(module: "QLoRAModule", data: "PubMedQADataModule", trainer: "Namespace") -> str:
    """Checks the options that `fit` checks before it reads the base model, and returns the precision."""
    from medqlora.training.checks.options import check_checkpointing, check_precision, check_weights

    data.check()
    module.lora.check()
    check_checkpointing(module.options.checkpointing)
    check_weights(module.options.engine, module.options.weights)
    precision = _PRECISIONS.get(str(trainer["precision"]), str(trainer["precision"]))
    check_precision(precision)
    return precision


def _bounds(trainer: "Namespace") -> RunBounds:
    epochs, steps = trainer["max_epochs"], trainer["max_steps"]
    if epochs is None:
        epochs = 1000 if steps == -1 else -1
    limit = 1.0 if trainer["limit_train_batches"] is None else trainer["limit_train_batches"]
    # a number of steps arrives as a float too
    return RunBounds(epochs, steps, int(limit) if limit > 1 else float(limit))


def _shape(backend: "Backend", config: "PretrainedConfig") -> "Shape":
    from medqlora.planner import Shape

    try:
        return Shape.of(config)
    except AttributeError as error:
        raise InputError(
            f"--model.backend.base: '{backend.base}' is {config.model_type}, whose memory is not known: plan is "
            "for decoders with one MLP per layer, such as Llama, Mistral and Qwen"
        ) from error


def _check_targets(backend: "Backend", lora: "LoRA", config: "PretrainedConfig") -> None:
    """Checks that the base model has the layers of `--model.lora.target_modules`."""
    from medqlora.models.lora import lora_targets
    from medqlora.models.transformers import CAUSAL, skeleton

    if lora.target_modules is not None:
        lora_targets(lora, skeleton(config, backend.base, getattr(backend, "auto_class", CAUSAL)))


def _configuration(backend: "Backend") -> tuple["PretrainedConfig", str | None]:
    """The base model's configuration, or the published one of the shape in its name with a note."""
    from transformers import AutoConfig

    from medqlora.profiling.shapes import SHAPES

    try:
        return backend.config(), None
    except InputError:
        base = re.sub(r"[^a-z0-9]+", "-", backend.base.lower())
        for name, (_, values) in SHAPES.items():
            if name != "tiny" and name in base:
                known = {key: value for key, value in values.items() if key != "model_type"}
                note = f"{backend.base} can't be read here: planned with the published shape of {name}"
                return AutoConfig.for_model(str(values["model_type"]), **known), note
        raise


def _why_without_hub(backend: "Backend", source: "Source") -> str | None:
    """A note where something has to come from the Hub and the Hub does not answer one request; else None."""
    from medqlora.models.hub import is_local

    origins = source.fingerprint()
    reads_hub = "hub" in origins.values() or ("path" in origins and origins["path"] is None)
    if hub_off() is not None or (is_local(backend.base) and not reads_hub):
        return None
    found = hub(needed=False)
    return None if found.state == "ok" else f"the Hub does not answer ({found.found}): planned without it"


def _lengths(data: "PubMedQADataModule", backend: "Backend") -> tuple[list[tuple[int, int]], str | None]:
    """(prompt, completion) of each training example in tokens, or PubMedQA's with a note."""
    try:
        data.read(backend.tokenizer(), ("train", "dev"), report=lambda line: None)
    except InputError:
        return _lengths_of_pubmedqa(data)
    return data.train_lengths, None


def _lengths_of_pubmedqa(data: "PubMedQADataModule") -> tuple[list[tuple[int, int]], str]:
    """PubMedQA's lengths for as many questions as the fit would train on, and a note.

    Raises:
        InputError: there are fewer questions than `--data.train_samples`.
    """
    from medqlora.data.sample import draw_sample
    from medqlora.data.stages import read_stages
    from medqlora.profiling.lengths import random_examples

    lengths = [
        (len(example.prompt), len(example.completion))
        for example in random_examples(vocab_size=2, longest=10_000)
    ]
    missing, count = "the questions, or the base's tokenizer,", len(lengths)
    try:
        records = read_stages(
            data.source,
            ("train",),
            lambda line: None,
            allow_test_questions=data.allow_test_questions,
        ).train
        missing, count = "the base's tokenizer", len(draw_sample(records, data.train_samples, data.seed))
    except InputError:
        if data.train_samples is not None:
            of_pubmedqa = data.source.name == "PubMedQA"
            count = min(count, data.train_samples) if of_pubmedqa else data.train_samples
    if count < len(lengths):
        lengths = random.Random(data.seed).sample(lengths, count)
    note = f"{missing} can't be read here: planned with {count:,} questions of PubMedQA's lengths"
    return list(itertools.islice(itertools.cycle(lengths), count)), note


def _fusable(
    module: "QLoRAModule", data: "PubMedQADataModule", config: "PretrainedConfig", longest: int
) -> bool:
    """Whether the fused engine can run the fit on a GPU that it knows."""
    from medqlora.fused.support import unsupported_shape

    return (
        module.options.engine != "native"
        and data.images is None
        and unsupported_shape(config.get_text_config(), longest) is None
        and getattr(module.backend, "quantization", "nf4") in ("nf4", "fp4", "gptq", "awq")
        and not module.lora.use_dora
        and data.options.packing != "padded"
    )
