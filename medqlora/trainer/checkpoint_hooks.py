"""Lightning's hooks that save and load a checkpoint, which holds the adapter only."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

from torch import Tensor

from medqlora.artifacts import checkpoint as checkpoints
from medqlora.artifacts.checkpoint import OptimizerFactory, SchedulerFactory
from medqlora.artifacts.checkpoint_files import read_checkpoint
from medqlora.artifacts.evaluated_weights import Learned
from medqlora.artifacts.validated import validated
from medqlora.compat.torch import all_keys_match
from medqlora.models.adapters import trainable_state
from medqlora.models.lora import LoRA
from medqlora.models.sharded import ShardedBase
from medqlora.trainer.evaluation_hooks import EvaluationHooks
from medqlora.trainer.run_data import RunData
from medqlora.utils.random_state import RandomState

C = TypeVar("C", bound="CheckpointHooks")


class CheckpointHooks(EvaluationHooks):
    """Saves and restores a run.

    Attributes:
        lora, optimizer, lr_scheduler: as in `QLoRAModule`.
        adapter: adapter that is evaluated; see `--model.adapter`.
        shared: the base's layers where processes share them; None otherwise.
        checkpoint: checkpoint file whose weights are evaluated instead of an adapter's; None without one.
        learned: what a fit of this process trained on; None before.
        skipped_steps: steps that the float16 scaler skipped.
    """

    lora: LoRA
    adapter: str | None
    shared: ShardedBase | None
    optimizer: str | OptimizerFactory
    lr_scheduler: str | SchedulerFactory

    def __init__(self) -> None:
        super().__init__()
        self.checkpoint: str | None = None
        self.learned: Learned | None = None
        self.skipped_steps = 0
        self._random_state: RandomState | None = None
        #: checkpoint of `load_from_checkpoint`, until the model is loaded
        self._initial: Path | None = None

    @classmethod
    def load_from_checkpoint(cls: type[C], checkpoint_path: Any, *args: Any, **options: Any) -> C:
        """A module with a checkpoint's weights, to be evaluated or trained on; the Trainer loads the base model.

        Args:
            checkpoint_path: a local file.
            args: Lightning's further arguments, which have no effect here.
            options: those of `QLoRAModule`; `lora` may be left out, for the checkpoint's.

        Raises:
            InputError: the file is damaged, or of another base model.
        """
        for name in ("map_location", "hparams_file", "strict", "weights_only"):
            options.pop(name, None)
        path = Path(checkpoint_path)
        saved = read_checkpoint(path)
        part = saved.get("medqlora")
        if part is not None and "lora" not in options:
            options["lora"] = LoRA(**cast(Any, part["lora"]))
        module = cls(**options)
        checkpoints.check(saved, module.backend, module.lora)
        module.checkpoint, module._initial = str(path), path
        return module

    def load_initial(self) -> None:
        """Loads the weights of `load_from_checkpoint` into the new model."""
        path, self._initial = self._initial, None
        if path is not None:
            self.load_state_dict(read_checkpoint(path)["state_dict"])

    def definition(self, data: RunData, precision: str) -> dict[str, object]:
        """The values that decide the course of a run; see `artifacts.checkpoint`."""
        return checkpoints.checkpoint_definition(
            base_identity=self.backend.identity(),
            source=data.source,
            data=data.options,
            step=self.options,
            optimizer=self.optimizer,
            scheduler=self.lr_scheduler,
            lora=self.lora,
            digests=data.example_digests(),
            precision=precision,
            stages=[stage.definition() for stage in data.training_stages],
            generated_tokens=self.options.max_new_tokens if self.options.generate else None,
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.flush_metrics()
        # copies: a view would be saved with its whole buffer
        checkpoint["state_dict"] = {name: value.clone() for name, value in self.adapter_state().items()}
        step, predictions = self.validated
        checkpoint[checkpoints.KEY] = {
            **checkpoints.describe(self.backend, self.lora, self.device),
            "definition": self.definition(self.data, str(self.trainer.precision)),
            # a resumed run restores the generators with its first step
            **({} if self._random_state is None else {"random_state": self._random_state}),
            "skipped_steps": self.skipped_steps,
            "validation": validated(predictions, self.trainer.callback_metrics, self.options.target_risk)
            if step == self.trainer.global_step
            else {},
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # `start_stage` has compared the rest
        checkpoints.check(checkpoint, self.backend, self.lora, anyway=True)
        saved = checkpoint[checkpoints.KEY]
        if self.trainer.state.fn == "fit":
            checkpoints.adopt_rates(checkpoint, self.options.learning_rate, self.options.weight_decay)
            self._random_state = saved["random_state"]
            self.skipped_steps = saved["skipped_steps"]

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Loads an adapter's weights; the base model is loaded already. Raises InputError for another adapter."""
        checkpoints.copy_weights(state_dict, self.adapter_state())
        return all_keys_match()

    def adapter_state(self) -> dict[str, Tensor]:
        """The trained tensors by name, in place."""
        return {f"model.{name}": value for name, value in trainable_state(self.model).items()}
