"""What Lightning calls of the module to save and to load a checkpoint."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

from torch import Tensor, nn

from medqlora.artifacts import checkpoint as checkpoints
from medqlora.artifacts.checkpoint_files import read_checkpoint
from medqlora.artifacts.evaluated_weights import Learned
from medqlora.artifacts.validated import validated
from medqlora.config.model import ModelOptions
from medqlora.models.adapters import trainable_state
from medqlora.models.backend import Backend
from medqlora.models.lora import LoRA
from medqlora.training.evaluation_steps import EvaluationSteps

C = TypeVar("C", bound="CheckpointSteps")


class CheckpointSteps(EvaluationSteps):
    """The part of `QLoRAModule` that makes a checkpoint one of the adapter alone.

    Attributes:
        backend, lora, learning_rate, weight_decay, target_risk: as in `QLoRAModule`.
        checkpoint: the checkpoint file whose weights are evaluated instead of an adapter's.
        learned: what a fit of this process trained on; None before.
        skipped_steps: steps that fp16's scaler left out.
    """

    backend: Backend
    lora: LoRA
    options: ModelOptions
    optimizer: Any
    learning_rate: float
    weight_decay: float
    target_risk: float

    def __init__(self) -> None:
        super().__init__()
        self.checkpoint: str | None = None
        self.learned: Learned | None = None
        self.skipped_steps = 0
        self._random_state: dict[str, Any] | None = None
        #: the checkpoint that `load_from_checkpoint` named, until the model is loaded
        self._initial: Path | None = None

    @classmethod
    def load_from_checkpoint(cls: type[C], checkpoint_path: Any, *args: Any, **options: Any) -> C:
        """A module with a checkpoint's weights, to be evaluated or trained on; the base is loaded by the Trainer.

        Args:
            checkpoint_path: a local file.
            args: Lightning's further arguments, which have no effect here.
            options: those of `QLoRAModule`; `lora` may be left out, for the checkpoint's.

        Raises:
            InputError: the file is damaged, or of another base.
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
        """Puts the weights that `load_from_checkpoint` named into the model, which has just been loaded."""
        path, self._initial = self._initial, None
        if path is not None:
            self.load_state_dict(read_checkpoint(path)["state_dict"])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.flush_metrics()
        # copies: a view would be saved with all of its buffer
        checkpoint["state_dict"] = {name: value.clone() for name, value in self._adapter_state().items()}
        checkpoint[checkpoints.KEY] = {
            **checkpoints.describe(self.backend, self.lora, self.device),
            "definition": checkpoints.checkpoint_definition(
                base_identity=self.backend.identity(),
                source=self.data.source,
                data=self.data.options,
                step=self.options,
                optimizer=self.optimizer,
                lora=self.lora,
                digests=self.data.example_digests(),
                precision=str(self.trainer.precision),
            ),
            # resumed, and no step taken since: the generators are put back only as that begins
            **({} if self._random_state is None else {"random_state": self._random_state}),
            "skipped_steps": self.skipped_steps,
            "validation": validated(self.validated[1], self.trainer.callback_metrics, self.target_risk)
            if self.validated[0] == self.trainer.global_step
            else {},
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # the rest was compared at the start, where it is known what may differ
        checkpoints.check(checkpoint, self.backend, self.lora, anyway=True)
        saved = checkpoint[checkpoints.KEY]
        if self.trainer.state.fn == "fit":
            checkpoints.adopt_rates(checkpoint, self.learning_rate, self.weight_decay)
            self._random_state = saved["random_state"]
            self.skipped_steps = saved["skipped_steps"]

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Takes an adapter's weights; the base is loaded already. Raises InputError for another adapter's."""
        checkpoints.copy_weights(state_dict, self._adapter_state())
        return nn.modules.module._IncompatibleKeys([], [])

    def _adapter_state(self) -> dict[str, Tensor]:
        return {f"model.{name}": value for name, value in trainable_state(self.model).items()}
