"""The average of several adapters of a run: stochastic weight averaging over validated weights."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from medqlora.artifacts.adapter_folder import write_adapter
from medqlora.artifacts.checkpoint import copy_weights
from medqlora.artifacts.checkpoint_files import SavedCheckpoint, problem, read_checkpoint
from medqlora.artifacts.validated import ValidationRecord, validated
from medqlora.callbacks.adapter_contents import ChosenBy, adapter_contents
from medqlora.callbacks.attached import qlora_module, run_folder, saver_of
from medqlora.config.callbacks import AverageOptions
from medqlora.evaluation import ValidationMetrics
from medqlora.evaluation.validation import labels_of
from medqlora.inference.evaluator import Evaluated
from medqlora.module import QLoRAModule
from medqlora.records import Prediction
from medqlora.trainer.evaluation_hooks import with_decisions
from medqlora.utils.console import say
from medqlora.utils.files import disk_full


class Kept(NamedTuple):
    """The weights of one validation.

    Attributes:
        score: the monitored one; NaN without.
        step: optimizer steps taken.
        weights: of the adapter, on the host.
    """

    score: float
    step: int
    weights: dict[str, Tensor]


class AverageAdapters(Callback):
    """Averages the adapters of the best or the last validations at the end of a fit.

    The mean of A and of B over points of one run is stochastic weight averaging (Izmailov et al., 2018,
    https://arxiv.org/abs/1803.05407). It is validated as every adapter, and written to `<run>/adapter_averaged/`
    beside `adapter/`, which stays the best single one's.

    Args:
        values, options: those of `medqlora.config.AverageOptions`.

    Raises:
        InputError: a number is out of its range.
    """

    def __init__(self, *values: object, **options: object) -> None:
        settings = AverageOptions(*values, **options)  # type: ignore[arg-type]  # checked where the options are read
        settings.check()
        self.count, self.of = settings.count, settings.of
        self.kept: list[Kept] = []
        #: the folder of the averaged adapter; None before it is written
        self.adapter_folder: Path | None = None

    def state_dict(self) -> dict[str, object]:
        return {"kept": [one._asdict() for one in self.kept]} if self.kept else {}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        kept = cast("list[dict[str, object]]", state_dict.get("kept", []))
        self.kept = [Kept(**one) for one in kept]  # type: ignore[arg-type]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.adapter_folder = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.count < 2 or trainer.sanity_checking or trainer.state.fn != "fit":
            return
        module = qlora_module(pl_module)
        if self.kept and self.kept[-1].step == trainer.global_step:
            return
        score = float(trainer.callback_metrics.get(_monitor(trainer), math.nan))
        weights = {name: value.cpu().clone() for name, value in module.adapter_state().items()}
        self.kept.append(Kept(score, trainer.global_step, weights))
        if len(self.kept) > self.count:
            if self.of == "last":
                del self.kept[0]
            else:
                sign = -1.0 if saver_of(trainer).mode == "min" else 1.0
                # of equal scores the newest goes: `adapter/` too is the earliest
                worst = min(self.kept, key=lambda one: (_rank(sign * one.score), -one.step))
                self.kept = [one for one in self.kept if one is not worst]

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module = qlora_module(pl_module)
        saver = saver_of(trainer)
        saver.settle(trainer)
        if len(self.kept) < 2:
            if self.count > 1:
                found = f"{len(self.kept)} validation{'s' * (len(self.kept) != 1)} of at least 2"
                say(f"No average of adapters: {found}")
            return
        # its options are those of the run: of the best checkpoint, or of the newest where that is gone
        files = [Path(file) for file in (saver.best_model_path, saver.last_model_path) if file]
        whole = next((file for file in files if problem(file) is None), None)
        if whole is None:
            say("No average of adapters: no checkpoint is on the disk")
            return
        saved = read_checkpoint(whole)
        present = {name: value.clone() for name, value in module.adapter_state().items()}
        mean = average([one.weights for one in self.kept])
        copy_weights(mean, module.adapter_state())
        try:
            predictions, metrics = _validate(module)
        finally:
            copy_weights(present, module.adapter_state())
        record = validated(
            predictions, {name: torch.tensor(value) for name, value in metrics.items()}, module.target_risk
        )
        monitor = _monitor(trainer)
        value = metrics.get(monitor)
        steps = ", ".join(str(one.step) for one in self.kept)
        what = f"the average of the {self.of} {len(self.kept)} adapters (steps {steps})"
        chosen = ChosenBy(f"{monitor} of {what}", value)
        folder = run_folder(trainer).averaged_adapter  # a broadcast: all processes are here
        if trainer.is_global_zero and not self._written(trainer, module, saved, mean, record, chosen, folder):
            return
        single = saver.best_model_score
        shown = "" if value is None else f": {monitor} {value:.4f}"
        shown += "" if single is None else f" (the best single one {float(single):.4f})"
        say(f"{what[0].upper()}{what[1:]}{shown}; in {folder}")

    def _written(
        self,
        trainer: Trainer,
        module: QLoRAModule,
        saved: SavedCheckpoint,
        mean: dict[str, Tensor],
        record: ValidationRecord,
        chosen: ChosenBy,
        folder: Path,
    ) -> bool:
        """Writes the folder; False on a full disk, which is told."""
        part = {**saved["medqlora"], "validation": record}
        averaged = cast(SavedCheckpoint, {**saved, "state_dict": mean, "medqlora": part})
        try:
            write_adapter(adapter_contents(trainer, module, module.data, averaged, chosen), folder)
        except OSError as error:
            if not disk_full(error):
                raise
            say(
                f"No room for the averaged adapter in {folder.parent} ({error.strerror}): make room, and fit again"
            )
            return False
        self.adapter_folder = folder
        return True


def average(weights: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of each tensor, computed in float64."""
    return {
        name: torch.stack([one[name].double() for one in weights]).mean(0).to(value.dtype)
        for name, value in weights[0].items()
    }


def _validate(module: QLoRAModule) -> tuple[list[Prediction], dict[str, float]]:
    """Predictions and scores of the present weights on the validation questions; every process asks all of them."""
    data = module.data
    module.eval()
    parts: list[Evaluated] = []
    try:
        with torch.no_grad(), module.trainer.precision_plugin.val_step_context():
            evaluator = module.evaluator()
            for batch in data.evaluation_loader(data.dev):
                parts.append(evaluator.evaluate(batch.examples, data.records, completions=True))  # noqa: PERF401
    finally:
        module.release_cache()
        module.train()
    predictions = [each for part in parts for each in part.predictions]
    scores = ValidationMetrics(labels_of(predictions), module.device)
    scores.update(predictions)
    metrics = {f"val/{name}": value for name, value in with_decisions(scores.compute()).items()}
    tokens = sum(part.completion_tokens for part in parts)
    if tokens:
        metrics["val/loss"] = math.fsum(part.completion_nll for part in parts) / tokens
    return predictions, metrics


def _rank(score: float) -> float:
    return -math.inf if math.isnan(score) else score


def _monitor(trainer: Trainer) -> str:
    return str(saver_of(trainer).monitor)
