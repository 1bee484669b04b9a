"""What Lightning calls of the module in validation, test and prediction."""

import math
from abc import abstractmethod
from typing import Any

from lightning.pytorch import LightningModule

from medqlora.artifacts.evaluated_weights import EvaluatedWeights
from medqlora.data.batching.loader import EvalBatch
from medqlora.distributed.processes import gather
from medqlora.evaluation import Tested, quick_scores
from medqlora.inference import answer_of, safe_answer
from medqlora.inference.evaluator import (
    Evaluated,
    Evaluator,
    SetPredictions,
    in_order,
)
from medqlora.records import Prediction
from medqlora.safety import screen
from medqlora.training.asking import build_evaluator
from medqlora.training.samples import log_samples
from medqlora.training.tested_sets import ScoreOptions, logged_scores, score_set


class EvaluationSteps(LightningModule):
    """The half of `QLoRAModule` that asks the model; the other half trains it.

    Attributes:
        model: what is asked.
        compare_base: `test` also asks the base without the adapter.
        heard: what `test` heard, a question set each, in the order of the data's `sets`.
        answered: what `predict` answered to the last group of questions.
        validated: the answers to the last validation, and the optimizer step of the weights that gave them.
        shown: what the progress bar shows: host floats, brought up to date at every logging step.
    """

    model: Any
    compare_base: bool

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[SetPredictions] = []
        self.answered: list[Prediction] = []
        self.validated: tuple[int, list[Prediction]] = (-1, [])
        self.shown: dict[str, float] = {}
        #: what an evaluation is of; None before the first
        self.evaluated: EvaluatedWeights | None = None
        #: how `test` compares the labels, and what came of the last one, a question set each
        self.test_options = ScoreOptions()
        self.tested: list[Tested] = []
        self._evaluated: list[Evaluated] = []

    @property
    @abstractmethod
    def data(self) -> Any:
        """The datamodule."""

    @abstractmethod
    def flush_metrics(self) -> None:
        """Logs what the steps left."""

    @abstractmethod
    def join(self) -> None:
        """Waits for the other processes that share the base, and helps them."""

    def evaluator(self) -> Evaluator:
        return build_evaluator(self, self.data)

    def on_validation_epoch_start(self) -> None:
        if self.trainer.sanity_checking:
            self.evaluator()  # processes choose the engine together, also one that has no question to ask
        self.flush_metrics()
        self._evaluated = []

    def validation_step(self, batch: EvalBatch, batch_idx: int) -> None:
        if not batch.examples:
            return
        evaluator = self.evaluator()
        self._evaluated.append(evaluator.evaluate(batch.examples, self.data.records, completions=True))

    def on_validation_epoch_end(self) -> None:
        self.join()
        self._evaluated = gather(self._evaluated, self.trainer.world_size)
        predictions = in_order([one for part in self._evaluated for one in part.predictions], self.data.dev)
        scores = with_decisions(quick_scores(predictions))
        metrics = {f"val/{name}": value for name, value in scores.items()}
        if self.trainer.sanity_checking:  # a few questions alone: no score of the weights
            return
        tokens = sum(part.completion_tokens for part in self._evaluated)
        if tokens:
            # exact whatever the order, so that it doesn't hang on who evaluated what
            metrics["val/loss"] = math.fsum(part.completion_nll for part in self._evaluated) / tokens
        self.log_dict(metrics, batch_size=len(predictions))  # every process has all of them
        shown = "token_f1" if "val/token_f1" in metrics else "accuracy"
        if f"val/{shown}" in metrics:
            self.shown[shown] = metrics[f"val/{shown}"]
        log_samples(self.loggers, predictions, self.data.records, self.trainer.global_step)
        self.validated, self._evaluated = (self.trainer.global_step, predictions), []

    def on_test_epoch_start(self) -> None:
        evaluator = self.evaluator()
        self.heard = [SetPredictions() for _ in self.data.sets]
        with self.trainer.precision_plugin.forward_context():  # as the steps themselves are run
            for one, heard in zip(self.data.sets, self.heard, strict=True):
                if one.content_free is not None:
                    heard.prior = evaluator.prior(one.content_free)
                    if self.compares_base:
                        with self.model.disable_adapter():
                            heard.base_prior = evaluator.prior(one.content_free)

    def test_step(self, batch: EvalBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        if not batch.examples:
            return
        index, part = self.data.test_parts[dataloader_idx]
        records, heard, evaluator = self.data.sets[index].records, self.heard[index], self.evaluator()
        if part == "dev":
            heard.dev += evaluator.evaluate(batch.examples, records, write=False).predictions
            return
        heard.test += evaluator.evaluate(batch.examples, records).predictions
        if self.compares_base:
            with self.model.disable_adapter():
                heard.base += evaluator.evaluate(batch.examples, records).predictions

    def on_test_epoch_end(self) -> None:
        self.join()
        for heard in self.heard:
            for part in ("dev", "test", "base"):
                setattr(heard, part, gather(getattr(heard, part), self.trainer.world_size))
        self.tested = [
            score_set(self, one, heard, self.test_options)
            for one, heard in zip(self.data.sets, self.heard, strict=True)
        ]
        self.log_dict(logged_scores(self.tested), batch_size=1)  # every process has all of them

    @property
    def compares_base(self) -> bool:
        return self.compare_base and hasattr(self.model, "disable_adapter")

    def predict_step(self, batch: EvalBatch, batch_idx: int) -> list[dict[str, Any]]:
        """The answers to a group of questions, as `medqlora.inference.Answer.to_json` gives them.

        Plain dictionaries: Lightning walks through what is returned, and fails at a frozen dataclass. A question
        that calls for a fixed reply (`medqlora.safety.screen`) is not put to the model.
        """
        records = [self.data.records[example.id] for example in batch.examples]
        replies = {record.id: screen(record.question) for record in records}
        asked = [example for example in batch.examples if replies[example.id] is None]
        self.answered = self.evaluator().evaluate(asked, self.data.records).predictions if asked else []
        predictions = {one.id: one for one in self.answered}
        calibration = self.evaluated.calibration if self.evaluated else None
        answers = []
        for record in records:
            reply = replies[record.id]
            answer = (
                answer_of(predictions[record.id], record, calibration)
                if reply is None
                else safe_answer(record, reply)
            )
            answers.append(answer.to_json())
        return answers


def with_decisions(scores: dict[str, float]) -> dict[str, float]:
    """The scores with `accuracy` and `macro_f1` of the label likelihoods where no text was written."""
    for name in ("accuracy", "macro_f1"):
        if f"likelihood_{name}" in scores:
            scores.setdefault(name, scores[f"likelihood_{name}"])
    return scores
