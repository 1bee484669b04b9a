"""The LightningModule: a 4-bit model with LoRA adapters, its optimizer step and its evaluation."""

import math
from typing import Any

import torch
from lightning.pytorch import Callback
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from medqlora.compat.lightning import LightningDriver, data_source, total_steps
from medqlora.config.model import ModelOptions
from medqlora.data.batching.packing import StepBatch
from medqlora.datamodule import PubMedQADataModule
from medqlora.distributed.collectives import sum_over_processes
from medqlora.distributed.loading import load_model
from medqlora.distributed.processes import AsyncScalar, gather
from medqlora.errors import InputError
from medqlora.models.backend import Backend
from medqlora.models.lora import LoRA
from medqlora.models.precision import DTYPES
from medqlora.models.quantization import count_parameters
from medqlora.models.sharded import ShardedBase
from medqlora.models.shares import loaded_shares
from medqlora.training.checkpoint_steps import CheckpointSteps
from medqlora.training.checks.options import check_options
from medqlora.training.checks.packing import check_largest_pack
from medqlora.training.checks.preflight import preflight
from medqlora.training.checks.trainer import check_trainer
from medqlora.training.engine_choice import EngineChoice, FusedSettings, choose
from medqlora.training.fit_plan import FitPlan, settle_fit, usable_memory
from medqlora.training.optim import (
    OptimizerFactory,
    OptimizerName,
    build_optimizer,
    warmup_cosine,
)
from medqlora.training.optimizer_names import NamedOptimizer
from medqlora.training.out_of_memory import BudgetSplitter
from medqlora.training.step import TrainStep
from medqlora.training.step_metrics import StepMetrics
from medqlora.utils.console import say
from medqlora.utils.module_property import ModuleProperty, raise_property_error
from medqlora.utils.random_state import restore_random_state


class QLoRAModule(CheckpointSteps):
    """Trains LoRA adapters on a quantized base, one optimizer step a batch, and evaluates them.

    The loss of a step is the sum over its completion tokens divided by their number in the whole step, so
    micro-batch size and number of processes change memory and speed, never the mathematics.

    Args:
        backend: the model: `medqlora.models.Unsloth`, `medqlora.models.Transformers` or
            `medqlora.models.TinyLlama`.
        lora: the adapters that are trained.
        optimizer: adamw_8bit, paged_adamw_8bit, adamw; another of torch.optim or bitsandbytes.optim by its class's
            name; or a `class_path` of any torch optimizer, with settings of its own.
        options: those of `medqlora.config.ModelOptions`.
    """

    def __init__(
        self,
        backend: Backend,
        lora: LoRA = LoRA(),  # noqa: B008  # frozen
        optimizer: NamedOptimizer | OptimizerName | OptimizerFactory = "adamw_8bit",
        **options: Any,
    ) -> None:
        super().__init__()
        self.options = ModelOptions(**options)
        self.automatic_optimization = False
        # a checkpoint holds the adapter alone; `load_state_dict` checks that nothing else is missing
        self.strict_loading = False
        self.backend = backend
        self.lora = lora
        self.adapter = self.options.adapter
        self.engine = self.options.engine
        self.checkpointing = self.options.checkpointing
        self.weights = self.options.weights
        self.embedding = self.options.embedding
        self.head = self.options.head
        self.preflight = self.options.preflight
        # a plain str: a checkpoint is read without pickled classes
        self.optimizer = str(NamedOptimizer(optimizer)) if isinstance(optimizer, str) else optimizer
        self.learning_rate = self.options.learning_rate
        self.weight_decay = self.options.weight_decay
        self.warmup_ratio = self.options.warmup_ratio
        self.max_grad_norm = self.options.max_grad_norm
        self.max_bad_steps = self.options.max_bad_steps
        self.generate = self.options.generate
        self.max_new_tokens = self.options.max_new_tokens
        self.compare_base = self.options.compare_base
        self.target_risk = self.options.target_risk
        self.model: Any = None
        #: the base's layers where they are spread over the processes
        self.shared: ShardedBase | None = None
        #: parameters (trainable, total), known once the model is loaded
        self.parameter_counts = (0, 0)
        #: what the fit was planned to take; None before, and where the model's shape isn't known
        self.planned: FitPlan | None = None
        self._metrics = StepMetrics()
        self._chosen: EngineChoice | None = None
        #: the signal that came to this process, and what all of them know to have come to any; 0 for none
        self.signal = self.agreed_signal = 0
        self._agreed_scalar = AsyncScalar()
        self._step: TrainStep | None = None

    # ---- the model -------------------------------------------------------------------------------

    @property
    def data(self) -> PubMedQADataModule:
        return self.trainer.datamodule  # type: ignore[attr-defined]

    @property
    def dtype_of_base(self) -> torch.dtype:
        return DTYPES[str(self.trainer.precision)]

    def check(self) -> None:
        """Raises InputError for what can be known to be wrong before a weight is loaded."""
        check_options(self, self.trainer)
        self.backend.check(
            self.lora, device=self.trainer.strategy.root_device, precision=str(self.trainer.precision)
        )
        self.backend.check_files()
        for line in self.backend.remarks():
            say(line)

    def configure_callbacks(self) -> list[Callback]:
        """Adds none; Lightning's first hook of a stage, before it starts other processes or raises errors of its own.

        Raises:
            InputError: as `check_trainer`; or the data are no PubMedQADataModule.
        """
        data = getattr(self.trainer, "datamodule", None)
        # Lightning keeps the datamodule of an earlier call, and asks the module for the loaders all the same
        if not isinstance(data, PubMedQADataModule) or data_source(self.trainer) is not data:
            verb = self.trainer.state.fn
            raise InputError(
                "QLoRAModule: it takes its batches from a PubMedQADataModule: pass "
                f"datamodule=medqlora.datamodule.PubMedQADataModule(…) to trainer.{verb.value if verb else 'fit'}"
            )
        check_trainer(self.trainer)
        return []

    def setup(self, stage: str) -> None:
        """Lightning's hook, after the datamodule's: what an earlier stage left of its engine is dropped."""
        # Lightning moves a model to the host between two stages, and an engine holds tensors of where it was
        self._chosen, self.planned, self._step = None, None, None
        if stage == "fit":
            self._metrics, self.skipped_steps, self.validated = StepMetrics(), 0, (-1, [])

    def __getattr__(self, name: str) -> Any:
        raise_property_error(self, name)
        return super().__getattr__(name)

    def configure_model(self) -> None:
        if self.model is not None:
            return
        named = None if self.adapter in (None, "none") else self.adapter
        # a checkpoint's weights go into fresh adapters
        fresh = self.trainer.state.fn == "fit" or self.checkpoint is not None

        def load(device: torch.device) -> nn.Module:
            return self.backend.load(
                lora=self.lora if fresh else None,
                adapter=None if fresh else named,
                device=device,
                dtype=self.dtype_of_base,
                seed=self.data.seed,
            )

        self.model, self.shared = load_model(
            load, self.trainer.strategy, embedding=self.embedding, head=self.head
        )
        self.parameter_counts = count_parameters(self.model)
        self.load_initial()
        if fresh:
            self._assert_trainable()
            trainable, total = self.parameter_counts
            say(f"Trainable parameters: {trainable:,} of {total:,} ({trainable / total:.2%})")
            say(loaded_shares(self.model).line(self.backend.options().get("quantization", "nf4")))

    def _assert_trainable(self) -> None:
        """What silently goes wrong elsewhere: checkpointing that is not in force."""
        wanted = bool(getattr(self.backend, "gradient_checkpointing", False))
        layers = [module for module in self.model.modules() if hasattr(module, "gradient_checkpointing")]
        in_force = any(module.gradient_checkpointing and module.training for module in layers)
        if in_force != wanted:  # no assert: python -O would leave it out
            raise RuntimeError(f"gradient checkpointing is {in_force}, asked for {wanted}")

    @ModuleProperty
    def chosen(self) -> EngineChoice:
        """The engine, and whether rows are packed: chosen once, on the loaded model."""
        if self._chosen is None:
            with self.trainer.precision_plugin.forward_context():
                # the model's own backward would keep weights that are given back
                needed = self.shared is not None and self.trainer.state.fn == "fit"
                self._chosen = choose(
                    self.model,
                    self.backend,
                    engine="fused" if needed else self.engine,
                    fused_settings=self._knobs,
                    packing=self.data.packing,
                    probe=self.data.probe(),
                    longest=self.data.longest,
                    device=self.device,
                    agree=self._agree,
                    shared=self.shared,
                )
        return self._chosen

    @ModuleProperty
    def packed(self) -> bool:
        return self.chosen.packed

    def _agree(self, reason: str | None) -> str | None:
        """A process's reason against an engine, or packing, is everyone's; an evaluation has no steps to share."""
        if self.trainer.state.fn != "fit":
            return reason
        return next(filter(None, gather([reason], self.trainer.world_size)), None)

    def _knobs(self, fused: bool) -> FusedSettings:
        if self.trainer.state.fn == "fit":
            width = self.dtype_of_base.itemsize
            # the tightest process's, so that all of them choose alike
            free = usable_memory(self.device)
            memory = min(gather([math.inf if free is None else free], self.trainer.world_size))
            self.planned = settle_fit(
                self,
                self.data,
                fused=fused,
                width=width,
                memory=None if math.isinf(memory) else int(memory),
                devices=self.trainer.world_size,
                spread=self.shared is not None,
            )
        if self.planned is None:
            return FusedSettings()
        return FusedSettings(self.planned.setting.checkpointing, self.planned.setting.cached)

    # ---- the step --------------------------------------------------------------------------------

    def configure_optimizers(self) -> OptimizerLRScheduler:
        named = [(name, parameter) for name, parameter in self.named_parameters() if parameter.requires_grad]
        optimizer = build_optimizer(
            self.optimizer, named, learning_rate=self.learning_rate, weight_decay=self.weight_decay
        )
        total = total_steps(self.trainer, self.data.steps_per_epoch)
        scheduler = warmup_cosine(optimizer, warmup_steps=round(total * self.warmup_ratio), total_steps=total)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def training_step(self, batch: StepBatch, batch_idx: int) -> Tensor:
        """One optimizer step; returns its loss, a mean over completion tokens, for callbacks."""
        assert self._step is not None
        step = self.trainer.global_step
        result = self._step.step(batch)
        self.skipped_steps += result.overflow
        self._metrics.add(step, result)
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]  # 0: at the epoch's end
        if every and (batch_idx + 1) % every == 0:
            self.flush_metrics()
        self.validated = (-1, [])  # it was of other weights
        return result.loss

    def _sum_over_processes(self, loss: Tensor) -> Tensor:
        """Sums gradients and loss over the processes; the message carries a signal that came to one of them, too."""
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        extra = torch.stack((loss, loss.new_tensor(float(self.signal))))
        loss, signal = sum_over_processes(self.trainer.optimizers[0], trained, extra)
        # the value of the step before, without a device sync
        self.agreed_signal = int(self._agreed_scalar.read())
        self._agreed_scalar.send(signal)
        return loss

    def join(self) -> None:
        """Where processes share a base: this one has nothing left to run, and helps the others until they haven't."""
        if self.shared is not None:
            self.shared.join()

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Lightning's hook between unscaling and update."""
        assert self._step is not None
        self._step.clip()

    def flush_metrics(self) -> None:
        """Logs every step since the last call: one message from the device for all of them.

        Raises:
            FloatingPointError: too many steps in a row had to be left out.
        """
        self.shown.update(self._metrics.flush(self.loggers, self.skipped_steps, self.max_bad_steps))

    def on_train_start(self) -> None:
        several = self.trainer.world_size > 1
        schedulers = self.trainer.lr_scheduler_configs
        self._step = TrainStep(
            self.chosen.decoder,
            self.trainer.optimizers[0],
            self.options,
            device=self.device,
            scheduler=schedulers[0].scheduler,
            driver=LightningDriver(self),
            splitter=BudgetSplitter(self.data.budget, self.data.step_of, self.device),
            finish=self.join,
            reduce=self._sum_over_processes if several else lambda loss: loss,
        )
        if self.preflight and self.planned is not None and self.device.type == "cuda":
            preflight(self, self.data, self.planned)
        if self.preflight and self.packed:
            check_largest_pack(self, self.data)
            self.join()  # the pack is smaller in a process that has less room

    def on_train_batch_start(self, batch: StepBatch, batch_idx: int) -> None:
        if self._random_state is not None:  # a resumed run draws dropout as the interrupted one would have
            restore_random_state(self._random_state)
            self._random_state = None
        if self.trainer.world_size > 1:  # each process its own masks, and the same ones after a resume
            place = self.trainer.global_step * self.trainer.world_size + self.trainer.global_rank
            torch.manual_seed(self.data.seed * 1_000_003 + place)

    def on_train_epoch_end(self) -> None:
        self.flush_metrics()
