"""Lightning's hooks of validation, test and prediction."""

import math
from abc import abstractmethod
from typing import Any, Literal

from lightning.pytorch import LightningModule

from medqlora.artifacts.evaluated_weights import EvaluatedWeights
from medqlora.config.model import ModelOptions
from medqlora.data.batching.loader import EvalBatch
from medqlora.distributed.collectives import gather
from medqlora.evaluation import Tested, ValidationMetrics
from medqlora.evaluation.metrics.checks import checked
from medqlora.evaluation.validation import labels_of
from medqlora.inference import answer_of, safe_answer
from medqlora.inference.evaluator import Evaluated, Evaluator, SetPredictions, in_order
from medqlora.models.backend import Backend
from medqlora.records import Prediction
from medqlora.safety import screen
from medqlora.trainer.run_data import RunData
from medqlora.training.baselines import Baselines, validation_line
from medqlora.training.engine_choice import EngineChoice
from medqlora.training.evaluators import build_evaluator
from medqlora.training.samples import log_validation
from medqlora.training.tested_sets import ScoreOptions, logged_scores, score_set
from medqlora.utils.console import say
from medqlora.utils.progress import Watcher


class EvaluationHooks(LightningModule):
    """Evaluates the model.

    Attributes:
        options, backend: as in `QLoRAModule`.
        model: the loaded model; None before `configure_model`.
        heard: predictions of the last `test`, one for each of the data's `sets`.
        answered: predictions of the last batch of `predict`.
        validated: optimizer step and predictions of the last validation; (-1, []) after a step.
        shown: values of the progress bar, updated at every logging step.
        evaluated: the weights that are evaluated; None before the first evaluation.
        test_options: how `test` compares the labels.
        tested: scores of the last `test`, one for each set.
        watcher: shows the progress within a step and within a group of questions.
    """

    options: ModelOptions
    backend: Backend
    model: Any

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[SetPredictions] = []
        self.answered: list[Prediction] = []
        self.validated: tuple[int, list[Prediction]] = (-1, [])
        self.shown: dict[str, float] = {}
        self.evaluated: EvaluatedWeights | None = None
        self.test_options = ScoreOptions()
        self.tested: list[Tested] = []
        self.watcher = Watcher()
        self._evaluated: list[Evaluated] = []
        #: the base model's predictions of a fit's first validation, and then its baselines
        self._base: list[Prediction] = []
        self._base_asked = False
        #: share of the most frequent answer in a fit's validation; None before it, and for free answers
        self.majority: float | None = None

    @property
    @abstractmethod
    def data(self) -> RunData:
        """The datamodule."""

    @property
    @abstractmethod
    def chosen(self) -> EngineChoice:
        """The engine, prepared."""

    @abstractmethod
    def prepare(self) -> None:
        """Chooses the engine, once a stage."""

    @abstractmethod
    def flush_metrics(self) -> None:
        """Logs the steps since the last call."""

    @abstractmethod
    def join(self) -> None:
        """Waits for the other processes that share the base model, and helps them."""

    @abstractmethod
    def keep_base(self) -> None:
        """Gathers a sharded base for an evaluation that generates, where it fits; all processes together."""

    @abstractmethod
    def give_back_base(self) -> None:
        """Frees what `keep_base` has gathered."""

    def evaluator(self) -> Evaluator:
        """Makes the evaluator of the present model and token budget."""
        return build_evaluator(self.model, self.backend, self.chosen, self.options, self.data, self.device)

    def release_cache(self) -> None:
        """Frees the key-value cache of the generation: the training needs the memory."""
        if self.chosen.evaluating is not None:
            self.chosen.evaluating.release()

    # ---- validation ------------------------------------------------------------------------------

    def on_validation_start(self) -> None:
        self.prepare()

    def on_validation_epoch_start(self) -> None:
        self.flush_metrics()
        self.keep_base()
        self._evaluated = []

    def forget_base(self) -> None:
        """A fit begins: its first validation asks the bare base again."""
        self._base, self._base_asked = [], False

    @property
    def _asks_base(self) -> bool:
        """Whether this validation also asks the bare base, by likelihood: the first one of a fit does."""
        fits = self.trainer.state.fn == "fit" and not self.trainer.sanity_checking
        return (
            fits and not self._base_asked and self.compares_base and all(one.labels for one in self.data.dev)
        )

    def validation_step(self, batch: EvalBatch, batch_idx: int) -> None:
        if batch.examples:
            evaluator, records = self.evaluator(), self.data.records
            self._evaluated.append(
                evaluator.evaluate(batch.examples, records, completions=True, watch=self.watcher.questions)
            )
            if self._asks_base:
                with self.model.disable_adapter():
                    self._base += evaluator.evaluate(batch.examples, records, write=False).predictions

    def on_validation_epoch_end(self) -> None:
        self.release_cache()
        self.give_back_base()
        self.join()
        own, self._evaluated = self._evaluated, []
        parts = gather(own, self.trainer.world_size)
        if self.trainer.sanity_checking:  # a few questions give no score
            return
        predictions = in_order([each for part in parts for each in part.predictions], self.data.dev)
        checked(predictions, "validation")
        scores = ValidationMetrics(labels_of(predictions), self.device)
        scores.update([each for part in own for each in part.predictions])
        metrics = {f"val/{name}": value for name, value in with_decisions(scores.compute()).items()}
        tokens = sum(part.completion_tokens for part in parts)
        if tokens:  # `fsum` is exact, so the order of the processes does not matter
            metrics["val/loss"] = math.fsum(part.completion_nll for part in parts) / tokens
        self.log_dict(metrics, batch_size=len(predictions))  # the same in every process
        shown = "token_f1" if "val/token_f1" in metrics else "accuracy"
        if f"val/{shown}" in metrics:
            self.shown[shown] = metrics[f"val/{shown}"]
        self._compare(predictions, metrics)
        if self.trainer.is_global_zero:
            log_validation(self.loggers, predictions, self.data.records, self.trainer.global_step)
        self.validated = (self.trainer.global_step, predictions)

    def _compare(self, predictions: list[Prediction], metrics: dict[str, float]) -> None:
        """Logs and says a fit's validation beside its baselines; every process calls it."""
        if self.trainer.state.fn != "fit":
            return
        if self._asks_base:
            self._base = gather(self._base, self.trainer.world_size)
            self._base_asked = True
        baselines = Baselines.of(predictions, self._base)
        step = self.trainer.global_step
        if baselines is not None:
            self.majority = baselines.majority
            for logger in self.loggers:
                logger.log_metrics(baselines.logged(), step=max(0, step - 1))  # as Lightning counts
        sample = self.data.samples.get("dev")
        questions = f"questions, a {sample}" if sample else "questions"
        say(
            self._stage_note(metrics) + validation_line(step, metrics, baselines, questions, len(predictions))
        )

    def _stage_note(self, metrics: dict[str, float]) -> str:
        """The stage and its epoch, in a training in stages; at its end its scores are logged under its name."""
        place = self.data.stage_at(self.trainer.current_epoch)
        if place is None:
            return ""
        number, name, epoch, epochs = place
        if epoch == epochs and self.trainer.is_last_batch:
            ended = {
                key.replace("val/", f"stages/{number}_{name}/", 1): value for key, value in metrics.items()
            }
            for logger in self.loggers:
                logger.log_metrics(ended, step=max(0, self.trainer.global_step - 1))
        return f"Stage {number} ({name}), epoch {epoch} of {epochs}: "

    # ---- test ------------------------------------------------------------------------------------

    @property
    def compares_base(self) -> bool:
        """Whether `test` also evaluates the base model without the adapter."""
        return self.options.compare_base and hasattr(self.model, "disable_adapter")

    def on_test_start(self) -> None:
        self.prepare()

    def on_test_epoch_start(self) -> None:
        self.keep_base()
        evaluator = self.evaluator()
        self.heard = [SetPredictions() for _ in self.data.sets]
        with self.trainer.precision_plugin.forward_context():  # as around a step
            for questions, answers in zip(self.data.sets, self.heard, strict=True):
                if questions.content_free is not None:
                    answers.prior = evaluator.prior(questions.content_free)
                    if self.compares_base:
                        with self.model.disable_adapter():
                            answers.base_prior = evaluator.prior(questions.content_free)

    def test_step(self, batch: EvalBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        if not batch.examples:
            return
        index, part = self.data.test_parts[dataloader_idx]
        records, answers, evaluator = self.data.sets[index].records, self.heard[index], self.evaluator()
        watch = self.watcher.questions
        if part == "dev":
            answers.dev += evaluator.evaluate(batch.examples, records, write=False, watch=watch).predictions
            return
        # with the base model each question is asked twice
        half = (lambda count: watch(count / 2)) if self.compares_base else watch
        answers.test += evaluator.evaluate(batch.examples, records, watch=half).predictions
        if self.compares_base:
            first = len(batch.examples)
            with self.model.disable_adapter():
                answers.base += evaluator.evaluate(
                    batch.examples, records, watch=lambda count: watch((first + count) / 2)
                ).predictions
        retrieval = self.data.sets[index].retrieval
        for name, encoded in (retrieval.conditions if retrieval else {}).items():
            examples = [encoded[example.id] for example in batch.examples if example.labels]
            if examples:
                found = evaluator.evaluate(examples, records, write=False).predictions
                answers.conditions.setdefault(name, []).extend(found)

    def on_test_epoch_end(self) -> None:
        self.release_cache()
        self.give_back_base()
        self.join()
        parts: tuple[Literal["dev", "test", "base"], ...] = ("dev", "test", "base")
        for answers in self.heard:
            for part in parts:
                setattr(answers, part, gather(getattr(answers, part), self.trainer.world_size))
        for questions, answers in zip(self.data.sets, self.heard, strict=True):
            for name in (
                questions.retrieval.conditions if questions.retrieval else ()
            ):  # the same in every process
                answers.conditions[name] = gather(answers.conditions.get(name, []), self.trainer.world_size)
        assert self.evaluated is not None
        self.tested = [
            score_set(
                questions,
                answers,
                self.test_options,
                seed=self.data.seed,
                prompt_sha256=questions.prompt.sha256(self.backend.tokenizer()),
                adapter=self.evaluated.name,
            )
            for questions, answers in zip(self.data.sets, self.heard, strict=True)
        ]
        self.log_dict(logged_scores(self.tested), batch_size=1)  # the same in every process

    # ---- predict ---------------------------------------------------------------------------------

    def on_predict_start(self) -> None:
        self.prepare()

    def predict_step(self, batch: EvalBatch, batch_idx: int) -> list[dict[str, Any]]:
        """The answers to a group of questions, as `medqlora.inference.Answer.to_json` gives them.

        Plain dictionaries: Lightning walks through the result, and fails at a frozen dataclass. A question with a
        fixed reply (`medqlora.safety.screen`) does not reach the model.
        """
        records = [self.data.records[example.id] for example in batch.examples]
        replies = {record.id: screen(record.question) for record in records}
        examples = [example for example in batch.examples if replies[example.id] is None]
        self.answered = []
        if examples:
            evaluated = self.evaluator().evaluate(examples, self.data.records, watch=self.watcher.questions)
            self.answered = evaluated.predictions
        predictions = {prediction.id: prediction for prediction in self.answered}
        weights, contexts = self.evaluated, self.data.index_contexts
        calibration, scope = (None, None) if weights is None else (weights.calibration, weights.scope)
        answers = []
        for record in records:
            reply = replies[record.id]
            answer = (
                answer_of(predictions[record.id], record, calibration, scope=scope)
                if reply is None
                else safe_answer(record, reply)
            )
            answers.append(answer.to_json() if contexts is None else contexts.cited(answer))
        return answers


def with_decisions(scores: dict[str, float]) -> dict[str, float]:
    """Adds `accuracy` and `macro_f1` of the label likelihoods where no text was generated."""
    for name in ("accuracy", "macro_f1"):
        if f"likelihood_{name}" in scores:
            scores.setdefault(name, scores[f"likelihood_{name}"])
    return scores
