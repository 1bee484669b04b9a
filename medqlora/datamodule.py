"""The LightningDataModule: the data of a run (`medqlora.trainer.run_data`) as Lightning's hooks."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from lightning.pytorch import LightningDataModule

from medqlora.config.data import DataOptions
from medqlora.config.retrieval import RetrievalOptions
from medqlora.data import Source
from medqlora.data.batching.loader import EvalLoader, StepLoader
from medqlora.data.batching.packing import StepBatch
from medqlora.data.training_stages import TrainingStage
from medqlora.errors import InputError
from medqlora.records import Encoded
from medqlora.trainer.run_data import RunData
from medqlora.trainer.stage_start import Stage, start_stage
from medqlora.trainer.step_hooks import StepHooks


class PubMedQADataModule(RunData, LightningDataModule):
    """Questions from a source, tokenized with a prompt: PubMedQA, or any other source.

    Args:
        source: where the records come from: `medqlora.data.PubMedQA`, `medqlora.data.JSONLines` or
            `medqlora.data.SyntheticTrials`.
        benchmarks: more sources, whose test questions `test` asks too, on the same loaded model.
        retrieval: an index that the contexts come from.
        stages: training sets in order, each with its own epochs, rate and sampling; none trains on the source's.
        options: those of `medqlora.config.DataOptions`.
    """

    def __init__(
        self,
        source: Source,
        benchmarks: list[Source] | None = None,
        retrieval: RetrievalOptions = RetrievalOptions(),  # noqa: B008  # frozen
        stages: list[TrainingStage] | None = None,
        **options: Any,
    ) -> None:
        LightningDataModule.__init__(self)
        self.options = DataOptions(**options)
        RunData.__init__(self, source, benchmarks, self.options, retrieval, stages)
        #: called once a stage between the checks of the options and reading: the command line chooses the weights
        self.before_reading: Callable[[], None] = lambda: None
        #: stage and Trainer of the last `start`, until Lightning's `setup` follows
        self._started: tuple[str, object] | None = None

    def prepare_data(self) -> None:
        """Lightning's hook for downloads: fetches the tokenizer, and builds the demo's base model.

        A single process makes all checks here: Lightning creates the logger's folder between this hook and `setup`,
        and a refused run must not leave one.
        """
        trainer = self.trainer
        if trainer is None or (self._started is not None and self._started[1] is trainer):
            return
        if trainer.world_size == 1 and trainer.state.fn is not None:
            self.start(cast(Stage, str(trainer.state.fn.value)))
        else:
            self._module.backend.tokenizer()

    def setup(self, stage: str) -> None:
        """Lightning's hook: checks options, callbacks, weights and records, and reads the sets of `stage`.

        Args:
            stage: "fit", "validate", "test" or "predict".

        Raises:
            InputError: something is wrong, or no Trainer and no QLoRAModule are attached.
        """
        if self._started != (stage, self.trainer):
            self.start(cast(Stage, stage))
        self._started = None

    def start(self, stage: Stage) -> None:
        """Does the work of `setup` before the Trainer runs; `setup` then does not repeat it."""
        if self.trainer is None:
            raise InputError(
                f"PubMedQADataModule.setup({stage!r}): no Trainer is attached, and the tokenizer is that of the "
                "module's base: pass the datamodule to trainer.fit(module, datamodule=…), or read by yourself with "
                "read(tokenizer, ('train', 'dev'))"
            )
        if stage == "fit":
            self.train, self.records = [], {}
            self.forget_digests()
        self.dev, self.test, self.sets = [], [], []
        start_stage(self.trainer, self._module, self, stage, self.before_reading)
        self._started = (stage, self.trainer)

    @property
    def _module(self) -> StepHooks:
        module = None if self.trainer is None else self.trainer.lightning_module
        if not hasattr(module, "backend"):
            raise InputError(
                f"PubMedQADataModule: {type(module).__name__} has no `backend`, whose tokenizer is needed: use "
                "medqlora.module.QLoRAModule, or a subclass"
            )
        return cast(StepHooks, module)

    def train_dataloader(self) -> StepLoader:
        """Lightning's hook; rows are packed as the engine allows, or as `packing` says without a Trainer."""
        trainer = self.trainer
        if trainer is None:
            return self.train_loader(packed=self.packing != "padded")
        return self.train_loader(
            packed=self._module.packed,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
            current_epoch=lambda: trainer.current_epoch,
        )

    def _evaluation(self, examples: Sequence[Encoded], *, in_order: bool = False) -> EvalLoader:
        trainer = self.trainer
        if trainer is None:
            return self.evaluation_loader(examples, in_order=in_order)
        return self.evaluation_loader(
            examples, in_order=in_order, rank=trainer.global_rank, world_size=trainer.world_size
        )

    def val_dataloader(self) -> EvalLoader:
        return self._evaluation(self.dev)

    def test_dataloader(self) -> list[EvalLoader]:
        """Of each set the test questions, then those on which confidence is calibrated."""
        return [
            self._evaluation(self.sets[index].test if part == "test" else self.sets[index].dev)
            for index, part in self.test_parts
        ]

    def predict_dataloader(self) -> EvalLoader:
        return self._evaluation(self.test, in_order=True)

    def transfer_batch_to_device(
        self, batch: StepBatch | tuple[object, ...], device: torch.device, dataloader_idx: int
    ) -> StepBatch | tuple[object, ...]:
        """Lightning's hook; batches of evaluation stay, the evaluator collates them itself."""
        if not isinstance(batch, StepBatch):
            return batch
        return batch._replace(micro_batches=tuple(micro.to(device) for micro in batch.micro_batches))
