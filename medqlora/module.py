"""The LightningModule: a 4-bit model with LoRA adapters. Its hooks are in `medqlora.trainer`."""

from dataclasses import fields, replace
from typing import Any

import torch
from lightning.pytorch import Callback
from torch import nn

from medqlora.artifacts.checkpoint import OptimizerFactory, SchedulerFactory
from medqlora.compat.lightning import checkpoint_to_restore, data_source, datamodule_of
from medqlora.config.model import ModelOptions
from medqlora.datamodule import PubMedQADataModule
from medqlora.distributed.loading import load_model
from medqlora.errors import InputError
from medqlora.models.backend import Backend
from medqlora.models.lora import LoRA
from medqlora.models.lora_init import init_eva
from medqlora.models.quantization import count_parameters
from medqlora.models.sharded import ShardedBase
from medqlora.models.shares import loaded_shares
from medqlora.planner.shape import weights_of_layers
from medqlora.trainer.checks import check_run, check_trainer
from medqlora.trainer.step_hooks import StepHooks
from medqlora.training.checks.model import check_gradient_checkpointing
from medqlora.training.checks.options import check_options
from medqlora.training.optim import OptimizerName, SchedulerName, check_scheduler
from medqlora.training.optimizer_names import NamedOptimizer
from medqlora.utils.console import say
from medqlora.utils.host_memory import resident_bytes, return_freed_memory
from medqlora.utils.progress import phase

#: weights of the decoder layers from which a fit on a CPU returns freed memory: below, what the allocator holds is
#: little, and the demo's steps would take half as long again
_RETURNS_FROM = 50_000_000
_OPTIONS = frozenset(field.name for field in fields(ModelOptions))


class QLoRAModule(StepHooks):
    """Trains LoRA adapters on a quantized base, one optimizer step a batch, and evaluates them.

    The loss of a step is the sum over its completion tokens divided by their number in the whole step, so
    micro-batch size and number of processes change memory and speed, never the mathematics.

    Args:
        backend: the model: `medqlora.models.Unsloth`, `medqlora.models.Transformers` or
            `medqlora.models.TinyLlama`.
        lora: the adapters that are trained.
        optimizer: adamw_8bit, paged_adamw_8bit, adamw; another of torch.optim or bitsandbytes.optim by its class's
            name; or a `class_path` of any torch optimizer, with settings of its own.
        lr_scheduler: cosine, linear or constant, each after the warm-up; or a `class_path` of torch.optim.lr_scheduler.
        options: those of `medqlora.config.ModelOptions`.
    """

    def __init__(
        self,
        backend: Backend,
        lora: LoRA = LoRA(),  # noqa: B008  # frozen
        optimizer: NamedOptimizer | OptimizerName | OptimizerFactory = "adamw_8bit",
        lr_scheduler: SchedulerName | SchedulerFactory = "cosine",
        **options: Any,
    ) -> None:
        super().__init__()
        self.options = ModelOptions(**options)
        self.automatic_optimization = False
        # a checkpoint holds the adapter only; `load_state_dict` checks that nothing else is missing
        self.strict_loading = False
        self.backend = backend
        self.lora = lora
        # a plain str: checkpoints are read without pickled classes
        self.optimizer = str(NamedOptimizer(optimizer)) if isinstance(optimizer, str) else optimizer
        self.lr_scheduler = lr_scheduler
        self.model: Any = None
        self.shared: ShardedBase | None = None

    def __getattr__(self, name: str) -> Any:
        """Each option is also an attribute of the module, as `module.generate`."""
        if name in _OPTIONS and "options" in self.__dict__:
            return getattr(self.options, name)
        return super().__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _OPTIONS:
            name, value = "options", replace(self.options, **{name: value})
        super().__setattr__(name, value)

    @property
    def data(self) -> PubMedQADataModule:
        data = datamodule_of(self.trainer)
        assert isinstance(data, PubMedQADataModule)  # `configure_callbacks` has checked it
        return data

    def check(self) -> None:
        """Raises InputError for options that are wrong whatever the data, before a weight is loaded."""
        check_run(self.trainer)
        check_options(self.options)
        check_scheduler(self.lr_scheduler)
        device, precision = self.trainer.strategy.root_device, str(self.trainer.precision)
        self.backend.check(self.lora, device=device, precision=precision)
        self.backend.check_files()
        for line in self.backend.remarks():
            say(line)

    def configure_callbacks(self) -> list[Callback]:
        """Adds none: Lightning's first hook of a stage, before it starts other processes.

        Raises:
            InputError: as `check_trainer`; or the data are no PubMedQADataModule.
        """
        data = datamodule_of(self.trainer)
        if not isinstance(data, PubMedQADataModule) or data_source(self.trainer) is not data:
            verb = self.trainer.state.fn
            raise InputError(
                "QLoRAModule: it takes its batches from a PubMedQADataModule: pass "
                f"datamodule=medqlora.datamodule.PubMedQADataModule(…) to trainer.{verb.value if verb else 'fit'}"
            )
        check_trainer(self.trainer)
        return []

    @property
    def _begins(self) -> bool:
        """Whether this is a fit with new weights, and not one that goes on from a checkpoint."""
        return self.trainer.state.fn == "fit" and self.checkpoint is None and checkpoint_to_restore() is None

    def _init_eva(self) -> None:
        """Sets LoRA's A by the training questions' activations; the same in every process."""
        with phase("Initialising LoRA by EVA"), self.trainer.precision_plugin.forward_context():
            pad_token_id = self.backend.tokenizer().pad_token_id or 0
            init_eva(self.model, self.data.train, pad_token_id, self.data.seed)

    def configure_model(self) -> None:
        """Lightning's hook: loads the base model, with new adapters or the evaluated one."""
        if self.model is not None:
            return
        adapter = None if self.adapter in (None, "none") else self.adapter
        if self.trainer.state.fn == "fit" and self.trainer.strategy.root_device.type == "cpu":
            if weights_of_layers(self.backend.config()) >= _RETURNS_FROM:
                return_freed_memory()
            self.process_bytes = resident_bytes()
        # the weights of a checkpoint are loaded into new adapters
        fresh = self.trainer.state.fn == "fit" or self.checkpoint is not None

        lora, adapter = (self.lora, None) if fresh else (None, adapter)

        def load(device: torch.device) -> nn.Module:
            return self.backend.load(
                lora=lora,
                adapter=adapter,
                device=device,
                dtype=self.dtype_of_base,
                seed=self.data.seed,
            )

        self.model, self.shared = load_model(
            load,
            self.trainer.strategy,
            embedding=self.options.embedding,
            head=self.options.head,
            once=lambda: self.backend.reads_weights_once(lora=lora, adapter=adapter),
        )
        self.parameter_counts = count_parameters(self.model)
        if self.lora.init == "eva" and self._begins:
            self._init_eva()
        self.load_initial()
        if fresh:
            check_gradient_checkpointing(self.model, self.backend)
            trainable, total = self.parameter_counts
            say(f"Trainable parameters: {trainable:,} of {total:,} ({trainable / total:.2%})")
            say(loaded_shares(self.model).line(self.backend.options().get("quantization", "nf4")))
