"""The LightningModule: a 4-bit model with LoRA adapters, its optimizer step and its evaluation."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from medqlora.answering import calibrate
from medqlora.console import say
from medqlora.data.loader import EvalBatch
from medqlora.data.packing import StepBatch
from medqlora.errors import InputError
from medqlora.evaluation import quick_scores
from medqlora.evaluation.evaluator import Evaluated, Evaluator, Heard
from medqlora.evaluation.generation import generate
from medqlora.models.adapters import trainable_state
from medqlora.models.backend import Backend
from medqlora.models.lora import LoRA
from medqlora.models.quantization import count_parameters
from medqlora.records import Prediction
from medqlora.training import checkpoint as checkpoints
from medqlora.training.engine_choice import Chosen, Engine, choose
from medqlora.training.optim import OptimizerFactory, OptimizerName, build_optimizer, warmup_cosine
from medqlora.training.option_checks import DTYPES, check_options
from medqlora.training.out_of_memory import split_further
from medqlora.training.samples import log_samples
from medqlora.training.step_metrics import StepMetrics

if TYPE_CHECKING:
    from medqlora.datamodule import PubMedQADataModule


class QLoRAModule(LightningModule):
    """Trains LoRA adapters on a quantized base, one optimizer step a batch, and evaluates them.

    The loss of a step is the sum over its completion tokens divided by their number in the whole step, so
    micro-batch size and number of processes change memory and speed, never the mathematics.

    Args:
        backend: the model: `medqlora.models.Unsloth`, `medqlora.models.Transformers` or
            `medqlora.models.TinyLlama`.
        lora: the adapters that are trained.
        adapter: evaluate this adapter folder (PEFT's format) instead; "none" for the bare base; null takes
            the newest finished run's on the same base.
        engine: what runs the training step and the scoring: "fused" is this project's own path for Llama-like
            4-bit models on packed rows, "native" the model's own forward; "auto" takes fused where it is faster.
        checkpointing: of the fused engine: "full" keeps each layer's input alone and computes the rest again in
            the backward, "offload" keeps that in host memory, "none" keeps all, a number is of layers that
            compute again; "auto" does as
            `backend.gradient_checkpointing` says. Memory and speed depend on it, the result does not.
        optimizer: adamw_8bit, paged_adamw_8bit, adamw, or a `class_path` of any torch optimizer.
        learning_rate: the highest rate, for whichever optimizer.
        weight_decay: AdamW's decoupled weight decay.
        warmup_ratio: the share of all steps over which the rate rises; then it falls along a cosine.
        max_grad_norm: the gradient's norm is clipped to it; 0 leaves it as it is.
        generate: also let the model write its answers in evaluation; false scores labels alone.
        max_new_tokens: where a written answer is cut.
        compare_base: `test` also asks the base without the adapter.
        target_risk: an adapter's answers are given as "uncertain" below the confidence from which on at most
            this share of the validation questions was answered wrongly.
    """

    def __init__(
        self,
        backend: Backend,
        lora: LoRA = LoRA(),  # noqa: B008  # frozen
        adapter: str | None = None,
        engine: Engine = "auto",
        checkpointing: Literal["auto", "offload", "full", "none"] | int = "auto",
        optimizer: OptimizerName | OptimizerFactory = "adamw_8bit",
        learning_rate: float = 2e-4,
        weight_decay: float = 0.0,
        warmup_ratio: float = 0.03,
        max_grad_norm: float = 1.0,
        generate: bool = True,
        max_new_tokens: int = 48,
        compare_base: bool = True,
        target_risk: float = 0.1,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        # a checkpoint holds the adapter alone; `load_state_dict` checks that nothing else is missing
        self.strict_loading = False
        self.backend = backend
        self.lora = lora
        self.adapter = adapter
        self.engine: Engine = engine
        self.checkpointing: Literal["auto", "offload", "full", "none"] | int = checkpointing
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.warmup_ratio = warmup_ratio
        self.max_grad_norm = max_grad_norm
        self.generate = generate
        self.max_new_tokens = max_new_tokens
        self.compare_base = compare_base
        self.target_risk = target_risk
        #: the checkpoint file whose weights are evaluated instead of an adapter's
        self.checkpoint: str | None = None
        self.model: Any = None
        #: what the progress bar shows: host floats, brought up to date at every logging step
        self.shown: dict[str, float] = {}
        #: parameters (trainable, total), known once the model is loaded
        self.parameter_counts = (0, 0)
        #: what `test` heard, a question set each, in the order of the data's `sets`
        self.heard: list[Heard] = []
        #: what `predict` answered to the last group of questions
        self.answered: list[Prediction] = []
        #: the answers to the last validation, and the optimizer step of the weights that gave them
        self.validated: tuple[int, list[Prediction]] = (-1, [])
        self._metrics = StepMetrics()
        self._chosen: Chosen | None = None
        self._random_state: dict[str, Any] | None = None
        self._evaluated: list[Evaluated] = []
        self._grad_norm = torch.zeros(())
        self.skipped_steps = 0

    # ---- the model -------------------------------------------------------------------------------

    @property
    def data(self) -> "PubMedQADataModule":
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

    def configure_model(self) -> None:
        if self.model is not None:
            return
        named = None if self.adapter in (None, "none") else self.adapter
        # a checkpoint's weights go into fresh adapters
        fresh = self.trainer.state.fn == "fit" or self.checkpoint is not None
        self.model = self.backend.load(
            lora=self.lora if fresh else None,
            adapter=None if fresh else named,
            device=self.trainer.strategy.root_device,
            dtype=self.dtype_of_base,
            seed=self.data.seed,
        )
        self.parameter_counts = count_parameters(self.model)
        if fresh:
            self._assert_trainable()
            trainable, total = self.parameter_counts
            say(f"Trainable parameters: {trainable:,} of {total:,} ({trainable / total:.2%})")

    def _assert_trainable(self) -> None:
        """What silently goes wrong elsewhere: checkpointing that is not in force."""
        wanted = bool(getattr(self.backend, "gradient_checkpointing", False))
        layers = [module for module in self.model.modules() if hasattr(module, "gradient_checkpointing")]
        in_force = any(module.gradient_checkpointing and module.training for module in layers)
        assert in_force == wanted, f"gradient checkpointing is {in_force}, asked for {wanted}"

    @property
    def chosen(self) -> Chosen:
        """The engine, and whether rows are packed: chosen once, on the loaded model."""
        if self._chosen is None:
            with self.trainer.precision_plugin.forward_context():
                self._chosen = choose(
                    self.model,
                    self.backend,
                    engine=self.engine,
                    checkpointing=self.checkpointing,
                    packing=self.data.packing,
                    probe=self.data.probe(),
                    device=self.device,
                )
        return self._chosen

    @property
    def packed(self) -> bool:
        return self.chosen.packed

    # ---- the step --------------------------------------------------------------------------------

    def total_steps(self) -> int:
        """Optimizer steps of the whole run.

        `trainer.estimated_stepping_batches` would tell it too, but sets the loader up before a resumed
        run's state is there, which is then lost (Lightning 2.6).
        """
        trainer: Any = self.trainer
        limit, epoch = trainer.limit_train_batches, self.data.steps_per_epoch
        epoch = min(epoch, limit) if isinstance(limit, int) else int(epoch * limit)
        bounds = []
        if trainer.max_epochs is not None and trainer.max_epochs >= 0:
            bounds.append(trainer.max_epochs * epoch)
        if trainer.max_steps >= 0:
            bounds.append(trainer.max_steps)
        if not bounds:
            raise InputError(
                "--trainer.max_epochs -1 without --trainer.max_steps: the learning rate needs an end"
            )
        return min(bounds)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        named = [(name, parameter) for name, parameter in self.named_parameters() if parameter.requires_grad]
        optimizer = build_optimizer(
            self.optimizer, named, learning_rate=self.learning_rate, weight_decay=self.weight_decay
        )
        total = self.total_steps()
        scheduler = warmup_cosine(optimizer, warmup_steps=round(total * self.warmup_ratio), total_steps=total)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def training_step(self, batch: StepBatch, batch_idx: int) -> None:
        optimizer, scheduler = self.optimizers(), self.lr_schedulers()
        # Lightning takes every parameter's gradient away before an epoch: back into the one buffer with them
        optimizer.zero_grad()  # type: ignore[union-attr]
        loss = self._gradients(batch)
        while loss is None:  # the handler is left first: it holds on to what the failed pass allocated
            optimizer.zero_grad()  # type: ignore[union-attr]
            batch = split_further(batch, self.data, self.device)
            loss = self._gradients(batch)
        step, rate = self.trainer.global_step, optimizer.param_groups[0]["lr"]  # type: ignore[union-attr]
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        scale = None if scaler is None else scaler.get_scale()
        optimizer.step()  # type: ignore[union-attr]  # fp16's gradients are unscaled before `on_before_optimizer_step`
        optimizer.zero_grad()  # type: ignore[union-attr]
        if scaler is not None and scaler.get_scale() < scale:
            self.skipped_steps += 1  # an overflow: the scaler left the weights alone
        else:
            scheduler.step()  # type: ignore[union-attr]
        self._metrics.add(step, loss, self._grad_norm, rate)
        if (batch_idx + 1) % self.trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self.flush_metrics()

    def _gradients(self, batch: StepBatch) -> Tensor | None:
        """Adds the step's gradients up; its loss, or None where that took more memory than there is."""
        loss = torch.zeros((), device=self.device)
        decoder = self.chosen.decoder
        try:
            for micro in batch.micro_batches:
                # DDP takes the mean over processes of what is a sum over them
                part = decoder.loss_sum(micro) * (self.trainer.world_size / batch.completion_tokens)
                with torch.autocast(
                    self.device.type, enabled=False
                ):  # a backward belongs outside of autocast
                    self.manual_backward(part)
                loss += part.detach()
        except torch.OutOfMemoryError:
            return None
        return loss

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        limit = self.max_grad_norm or math.inf
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self._grad_norm = nn.utils.clip_grad_norm_(parameters, limit)

    def flush_metrics(self) -> None:
        """Logs every step since the last call: one message from the device for all of them.

        Raises:
            FloatingPointError: a loss was not a finite number.
        """
        self.shown.update(self._metrics.flush(self.loggers, self.skipped_steps))

    def on_train_batch_start(self, batch: StepBatch, batch_idx: int) -> None:
        if self._random_state is not None:  # a resumed run draws dropout as the interrupted one would have
            checkpoints.restore_random_state(self._random_state)
            self._random_state = None

    def on_train_epoch_end(self) -> None:
        self.flush_metrics()

    # ---- evaluation ------------------------------------------------------------------------------

    def _evaluator(self) -> Evaluator:
        tokenizer = self.backend.tokenizer()

        def write(prompts: Sequence[Sequence[int]]) -> list[list[int]]:
            with self.backend.generating(self.model):
                return generate(
                    self.model,
                    prompts,
                    max_new_tokens=self.max_new_tokens,
                    end_token_ids=self.data.end_token_ids,
                    pad_token_id=tokenizer.pad_token_id,
                    device=self.device,
                )

        return Evaluator(
            self.chosen.decoder,
            write if self.generate else None,
            tokenizer=tokenizer,
            micro_batch_tokens=self.data.micro_batch_tokens,
            packed=self.packed,
            pad_token_id=tokenizer.pad_token_id,
            device=self.device,
            rows=self.data.eval_batch_size,
        )

    def on_validation_epoch_start(self) -> None:
        self.flush_metrics()
        self._evaluated = []

    def validation_step(self, batch: EvalBatch, batch_idx: int) -> None:
        evaluator = self._evaluator()
        self._evaluated.append(evaluator.evaluate(batch.examples, self.data.records, completions=True))

    def on_validation_epoch_end(self) -> None:
        predictions = [prediction for part in self._evaluated for prediction in part.predictions]
        scores = quick_scores(predictions)
        for name in ("accuracy", "macro_f1"):  # without text the label likelihoods decide
            scores.setdefault(name, scores.get(f"likelihood_{name}", 0.0))
        metrics = {f"val/{name}": value for name, value in scores.items()}
        tokens = sum(part.completion_tokens for part in self._evaluated)
        if tokens:
            metrics["val/loss"] = sum(part.completion_nll for part in self._evaluated) / tokens
        self.log_dict(metrics, batch_size=len(predictions), rank_zero_only=True)
        if "val/accuracy" in metrics:
            self.shown["accuracy"] = metrics["val/accuracy"]
        log_samples(self.loggers, predictions, self.data.records, self.trainer.global_step)
        self.validated, self._evaluated = (self.trainer.global_step, predictions), []

    def on_test_epoch_start(self) -> None:
        evaluator = self._evaluator()
        self.heard = [Heard() for _ in self.data.sets]
        with self.trainer.precision_plugin.forward_context():  # as the steps themselves are run
            for one, heard in zip(self.data.sets, self.heard, strict=True):
                if one.content_free is not None:
                    heard.prior = evaluator.prior(one.content_free)
                    if self.compares_base:
                        with self.model.disable_adapter():
                            heard.base_prior = evaluator.prior(one.content_free)

    def test_step(self, batch: EvalBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        index, part = self.data.test_parts[dataloader_idx]
        records, heard, evaluator = self.data.sets[index].records, self.heard[index], self._evaluator()
        if part == "dev":
            heard.dev += evaluator.evaluate(batch.examples, records, write=False).predictions
            return
        heard.test += evaluator.evaluate(batch.examples, records).predictions
        if self.compares_base:
            with self.model.disable_adapter():
                heard.base += evaluator.evaluate(batch.examples, records).predictions

    @property
    def compares_base(self) -> bool:
        return self.compare_base and hasattr(self.model, "disable_adapter")

    def predict_step(self, batch: EvalBatch, batch_idx: int) -> list[str]:
        # Lightning would walk through what is returned, and fails at a frozen dataclass
        self.answered = self._evaluator().evaluate(batch.examples, self.data.records).predictions
        return [one.id for one in self.answered]

    # ---- checkpoints -----------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.flush_metrics()
        # copies: a view would be saved with all of its buffer
        checkpoint["state_dict"] = {name: value.clone() for name, value in self._adapter_state().items()}
        checkpoint[checkpoints.KEY] = {
            **checkpoints.describe(self.backend, self.lora, self.device),
            "skipped_steps": self.skipped_steps,
            "validation": self._validation(),
        }

    def _validation(self) -> dict[str, Any]:
        """The scores of these very weights, and the calibration of their answers; {} without either."""
        step, predictions = self.validated
        if step != self.trainer.global_step:
            return {}
        metrics = self.trainer.callback_metrics
        scores = {name: float(value) for name, value in metrics.items() if name.startswith("val/")}
        labelled = [
            one
            for one in predictions
            if one.gold in one.labels and one.logprobs and all(map(math.isfinite, one.logprobs))
        ]
        found = calibrate(labelled, self.target_risk).to_json() if labelled else None
        return {"scores": scores, "calibration": found}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoints.check(checkpoint, self.backend, self.lora)
        saved = checkpoint[checkpoints.KEY]
        self._random_state = saved["random_state"]
        self.skipped_steps = saved["skipped_steps"]

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """Takes an adapter's weights; the base is loaded already. Raises InputError for another adapter's."""
        checkpoints.copy_weights(state_dict, self._adapter_state())
        return nn.modules.module._IncompatibleKeys([], [])

    def _adapter_state(self) -> dict[str, Tensor]:
        return {f"model.{name}": value for name, value in trainable_state(self.model).items()}
