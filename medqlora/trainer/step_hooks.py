"""Lightning's hooks of the fit: engine, optimizer, training steps, checks before the first one."""

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim import Optimizer

from medqlora.artifacts.checkpoint import OptimizerFactory
from medqlora.compat.lightning import LightningDriver, log_every_n_steps
from medqlora.data.batching.packing import MicroBatch, StepBatch
from medqlora.distributed.collectives import AsyncScalar, gather, sum_over_processes
from medqlora.distributed.whole_base import keep_where_it_fits
from medqlora.fused import FusedDecoder, unsupported
from medqlora.inference.evaluator import Evaluator
from medqlora.models.decoder import Decoder
from medqlora.models.precision import DTYPES
from medqlora.planner import Shape
from medqlora.trainer.checkpoint_hooks import CheckpointHooks
from medqlora.training.checks.packing import check_largest_pack
from medqlora.training.checks.preflight import preflight
from medqlora.training.engine_choice import Candidate, EngineChoice, prepare_engine
from medqlora.training.fit_plan import FitOptions, FitPlan, plan_fit, stored_width, usable_memory
from medqlora.training.optim import StageRate, build_optimizer, build_scheduler, staged_schedule
from medqlora.training.out_of_memory import BudgetSplitter
from medqlora.training.step import TrainStep
from medqlora.training.step_metrics import StepMetrics
from medqlora.utils.console import say
from medqlora.utils.progress import phase
from medqlora.utils.random_state import restore_random_state
from medqlora.utils.run_length import limited, total_steps


class StepHooks(CheckpointHooks):
    """Trains the model.

    Attributes:
        optimizer: name or factory, see `QLoRAModule`.
        parameter_counts: trainable and total parameters, known once the model is loaded.
        process_bytes: memory of the process before the model was loaded; counted for a fit on a CPU.
        signal: signal that this process received; 0 for none.
        agreed_signal: signal that all processes know one of them received; 0 for none.
    """

    optimizer: str | OptimizerFactory

    def __init__(self) -> None:
        super().__init__()
        self.parameter_counts = (0, 0)
        self.process_bytes = 0
        self.signal = self.agreed_signal = 0
        self._agreed_scalar = AsyncScalar()
        self._metrics = StepMetrics()
        self._engine: EngineChoice | None = None
        self._step: TrainStep | None = None
        self._told_of_base = False

    def setup(self, stage: str) -> None:
        """Lightning's hook, after the datamodule's: drops the engine of the stage before.

        Lightning moves the model to the host between two stages, and an engine holds tensors of the device.
        """
        self._engine = self._step = None
        self._told_of_base = False
        if stage == "fit":
            self._metrics, self.skipped_steps, self.validated = StepMetrics(), 0, (-1, [])
            self.forget_base()

    # ---- the engine ------------------------------------------------------------------------------

    def check(self) -> None:
        """Raises InputError for options that are wrong whatever the data, before a weight is loaded."""

    @property
    def chosen(self) -> EngineChoice:
        """The engine of this stage. Raises RuntimeError before `prepare`, the hook at the start of a stage."""
        if self._engine is None:
            raise RuntimeError(
                "QLoRAModule: the engine is chosen when the Trainer starts a stage, see `prepare`"
            )
        return self._engine

    @property
    def packed(self) -> bool:
        """Whether a row holds several examples."""
        return self.chosen.packed

    @property
    def planned(self) -> FitPlan | None:
        """Memory plan of the fit; None before, in an evaluation, and for a shape that the planner does not know."""
        return None if self._engine is None else self._engine.planned

    @property
    def dtype_of_base(self) -> torch.dtype:
        """Data type of the matrix products."""
        return DTYPES[str(self.trainer.precision)]

    def on_fit_start(self) -> None:
        self.prepare()

    def prepare(self) -> None:
        """Chooses the engine and plans the fit's memory, once a stage; all processes together."""
        if self._engine is not None:
            return
        data = self.data
        candidate = Candidate(
            self.model, self.backend, self.device, data.probe(), data.longest, self.shared, data.eval_memory
        )
        fits = self.trainer.state.fn == "fit"
        with phase("Choosing the engine"), self.trainer.precision_plugin.forward_context():
            self._engine = prepare_engine(
                candidate,
                engine=self.options.engine,
                packing=data.packing,
                plan=self._plan if fits else lambda fused: None,
                agree=self._agree if fits else lambda reason: reason,
                weights=self.options.weights,
                decoding=self.options.decoding,
            )

    def _agree(self, reason: str | None) -> str | None:
        return next(filter(None, gather([reason], self.trainer.world_size)), None)

    def _plan(self, fused: bool) -> FitPlan | None:
        """Plans the fit, tells the user in a line, and settles the token budget.

        None for a base model that is no Llama-like decoder.
        """
        free = usable_memory(self.device)
        # of the tightest process, so that all choose alike
        memory = min(gather([math.inf if free is None else free], self.trainer.world_size))
        data = self.data
        try:
            shape = replace(Shape.of(self.backend.config()), vision=self.backend.vision_parameters())
        except AttributeError:
            return None
        planned = plan_fit(
            shape,
            FitOptions(
                self.backend,
                self.lora,
                self.options,
                data.options,
                self.optimizer,
                data.budget.option,
                device="cpu" if self.device.type == "cpu" else "cuda",
                process=self.process_bytes,
                stored_width=stored_width(self.backend.config()),
                fusable=unsupported(self.model, data.longest) is None,
            ),
            data.train_lengths,
            fused=fused,
            width=self.dtype_of_base.itemsize,
            memory=None if math.isinf(memory) else int(memory),
            devices=self.trainer.world_size,
            shards=1 if self.shared is None else self.shared.shards,
            questions=[len(example.prompt) for example in data.dev],
        )
        data.budget.settle(planned.micro_batch_tokens)
        say(planned.summary())
        return planned

    # ---- the step --------------------------------------------------------------------------------

    def configure_optimizers(self) -> OptimizerLRScheduler:
        named = [(name, parameter) for name, parameter in self.named_parameters() if parameter.requires_grad]
        options = self.options
        optimizer = build_optimizer(
            self.optimizer,
            named,
            learning_rate=options.learning_rate,
            weight_decay=options.weight_decay,
            lora_plus_ratio=options.lora_plus_ratio,
        )
        total = total_steps(self.trainer, self.data.epoch_steps)
        if stages := self._stage_rates():
            scheduler = staged_schedule(
                self.lr_scheduler,
                optimizer,
                stages,
                warmup_ratio=options.warmup_ratio,
                total_steps=total,
                each=self.data.options.stage_schedule == "each",
            )
        else:
            warmup = round(total * options.warmup_ratio)
            scheduler = build_scheduler(self.lr_scheduler, optimizer, warmup_steps=warmup, total_steps=total)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _stage_rates(self) -> list[StageRate]:
        """Steps and rate of each stage; none without stages."""
        rates, steps = [], iter(self.data.epoch_steps)
        for stage in self.data.training_stages:
            count = sum(limited(self.trainer, next(steps)) for _ in range(stage.epochs))
            rate, full = stage.learning_rate, self.options.learning_rate
            rates.append(StageRate(count, 1.0 if rate is None else rate / full if full else 0.0))
        return rates

    def on_train_start(self) -> None:
        self._step = TrainStep(
            self.chosen.decoder,
            self.trainer.optimizers[0],
            self.options,
            device=self.device,
            scheduler=self.trainer.lr_scheduler_configs[0].scheduler,
            driver=LightningDriver(self),
            splitter=BudgetSplitter(self.data.budget, self.data.step_of, self.device),
            finish=self.join,
            reduce=self._sum_over_processes if self.trainer.world_size > 1 else lambda loss: loss,
            watch=lambda done, of_tokens: self.watcher.step(done, of_tokens),
        )
        if self.options.preflight:
            self._preflight()
        self._add_noise()

    def _preflight(self) -> None:
        """Runs the largest batches once, and compares packed with single examples."""
        if self.planned is not None and self.device.type == "cuda":
            preflight(_Trial(self), self.data, self.planned, self.device)
        if self.packed:
            check_largest_pack(
                self.model,
                self.chosen.decoder,
                self.backend.decoder(self.model),
                self.data,
                devices=self.trainer.world_size,
                precision=self.trainer.precision_plugin.val_step_context,
                dtype=self.dtype_of_base,
                device=self.device,
            )
            self.join()  # a process with less room has a smaller pack

    def _add_noise(self) -> None:
        """Switches NEFTune on, after the comparison of packed with single examples."""
        decoder = self.chosen.decoder
        if self.options.neftune_alpha and isinstance(decoder, (Decoder, FusedDecoder)):
            decoder.noise_alpha = self.options.neftune_alpha

    def on_train_batch_start(self, batch: StepBatch, batch_idx: int) -> None:
        if self._random_state is not None:  # a resumed run draws the dropout of the interrupted one
            restore_random_state(self._random_state)
            self._random_state = None
        if self.trainer.world_size > 1:  # each process has its own masks, the same ones after a resume
            place = self.trainer.global_step * self.trainer.world_size + self.trainer.global_rank
            torch.manual_seed(self.data.seed * 1_000_003 + place)

    def training_step(self, batch: StepBatch, batch_idx: int) -> Tensor:
        """Takes one optimizer step; returns its loss, a mean over completion tokens, for callbacks."""
        assert self._step is not None
        number = self.trainer.global_step
        result = self._step.step(batch)
        self.skipped_steps += result.overflow
        self._metrics.add(number, result)
        every = log_every_n_steps(self.trainer)
        if every and (batch_idx + 1) % every == 0:
            self.flush_metrics()
        self.validated = (-1, [])  # the weights are new
        return result.loss

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Lightning's hook between unscaling and update."""
        assert self._step is not None
        self._step.clip()

    def _sum_over_processes(self, loss: Tensor) -> Tensor:
        """Sums gradients and loss over the processes; the message also carries a received signal."""
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        extra = torch.stack((loss, loss.new_tensor(float(self.signal))))
        loss, signal = sum_over_processes(self.trainer.optimizers[0], trained, extra)
        # the value of the step before, without a device sync
        self.agreed_signal = int(self._agreed_scalar.read())
        self._agreed_scalar.send(signal)
        return loss

    def join(self) -> None:
        """Waits for the other processes that share the base model, and helps them."""
        if self.shared is not None:
            self.shared.join()

    def keep_base(self) -> None:
        if self.shared is not None and self.options.generate:
            tell, self._told_of_base = not self._told_of_base, True
            keep_where_it_fits(self.shared, self.device, self.trainer.world_size, tell=tell)

    def give_back_base(self) -> None:
        if self.shared is not None:
            self.shared.give_back()

    def flush_metrics(self) -> None:
        """Logs every step since the last call, with one copy from the device.

        Raises:
            FloatingPointError: too many steps in a row were not finite.
        """
        shown = self._metrics.flush(self.loggers, self.skipped_steps, self.options.max_bad_steps)
        self.shown.update(shown)

    def on_train_epoch_end(self) -> None:
        self.flush_metrics()

    def on_train_end(self) -> None:
        graphs = getattr(self.chosen.decoder, "graphs", None)
        if graphs is not None:
            summary = graphs.summary()
            if summary is not None:
                say(summary)
            graphs.clear()


class _Trial:
    """A fit before its first step, as `preflight` runs it."""

    def __init__(self, module: StepHooks) -> None:
        self._module = module
        self.join = module.join

    def train(self, micro: MicroBatch) -> None:
        """Runs forward and backward; an exception keeps no gradient alive."""
        module, optimizer = self._module, self._module.trainer.optimizers[0]
        decoder = module.chosen.decoder
        optimizer.zero_grad()
        try:
            # the first pass compiles kernels, and the second is captured
            for _ in range(1 if getattr(decoder, "graphs", None) is None else 2):
                with module.trainer.precision_plugin.train_step_context():
                    loss = decoder.loss_sum(micro.to(module.device)) / max(1, len(micro.targets))
                loss.backward()
                del loss
        finally:
            optimizer.zero_grad()

    def evaluate(self, run: Callable[[Evaluator], object]) -> None:
        module = self._module
        module.eval()
        module.keep_base()
        try:
            with torch.no_grad(), module.trainer.precision_plugin.val_step_context():
                run(module.evaluator())
        finally:
            module.release_cache()
            module.give_back_base()
            module.train()
