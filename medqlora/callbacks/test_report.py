"""From the predictions of `test` to its report: files, figures in TensorBoard, and a table."""

import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from medqlora.artifacts.adapter_export import versions
from medqlora.artifacts.evaluated_weights import EvaluatedWeights
from medqlora.config.callbacks import ReportOptions
from medqlora.data.question_set import QuestionSet
from medqlora.errors import InputError
from medqlora.evaluation import (
    Scores,
    Tested,
    TrainingTrace,
    console_table,
    figures,
    overlap,
    suite_figure,
    suite_table,
    write_report,
    write_suite,
)
from medqlora.inference import Calibration
from medqlora.trainer.stage_start import Stage
from medqlora.training.tested_sets import ScoreOptions, logged_under
from medqlora.utils.console import say


class EvaluationReport(Callback):
    """Writes `test_report.json`, `predictions.jsonl`, `predictions_official.json` and `report.html`.

    Args:
        options: those of `medqlora.config.ReportOptions`.
    """

    def __init__(self, **options: Any) -> None:
        settings = ReportOptions(**options)
        self.allow_overlap = settings.allow_overlap
        self.normalisation = settings.normalisation
        self.prior_correction = settings.prior_correction
        #: of each question set, what the last test found
        self.tested: list[Tested] = []
        self._overlap: dict[str, dict[str, Any]] = {}
        self._started = self._asking_s = 0.0
        #: what was saved with the weights under test, to say how its threshold holds on the questions
        self.calibration: Calibration | None = None
        #: benchmark → how many of its test questions the weights under test were trained and validated on
        self.test_questions: Mapping[str, Mapping[str, int]] = {}

    @property
    def scores(self) -> Scores:
        """The scores of the last test on the source's own questions."""
        return self.tested[0].scores

    def check_prior(self, sets: Sequence[QuestionSet]) -> None:
        """Raises InputError when the prior is to be corrected and a set has none."""
        for one in sets:
            if self.prior_correction and one.content_free is None:
                raise InputError(
                    f"--report.prior_correction true: the questions of {one.source.name} don't all have the same "
                    "labels, so there is no one prior: leave it out"
                )

    def check_start(self, trainer: Trainer, module: Any, data: Any, stage: Stage) -> None:
        """Compares the test questions with what the weights were trained on, before a model is loaded.

        Raises:
            InputError: questions of a test set were trained on, and that is not allowed; or the prior is to be
                corrected and there is none.
        """
        if stage != "test":
            return
        weights: EvaluatedWeights = module.evaluated
        module.test_options = ScoreOptions(self.normalisation, self.prior_correction)
        self.calibration = weights.calibration
        self.test_questions = weights.test_questions
        self.check_prior(data.sets)
        self.check_overlap(weights.trace(), data.sets)

    def check_overlap(self, trained: TrainingTrace | None, sets: Sequence[QuestionSet]) -> None:
        """Compares what the adapter was trained on with the test questions.

        Raises:
            InputError: questions of a test set were trained on, and that is not allowed.
        """
        self._overlap = {}
        if trained is None:
            return
        for one in sets:
            found = overlap(trained, [one.records[example.id] for example in one.test])
            self._overlap[one.source.name] = found.to_json()
            if found.contaminated and not self.allow_overlap:
                raise InputError(
                    f"--model.adapter: {len(found.contaminated)} of the {found.n} test questions of "
                    f"{one.source.name} were in its training set (the first is {found.contaminated[0]}): test on "
                    "others, or pass --report.allow_overlap true to have it reported"
                )

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = time.perf_counter()

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._asking_s = (
            time.perf_counter() - self._started
        )  # every prediction of this process is on the host

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # asked by all processes: the first one tells
        folder = Path(trainer.log_dir or trainer.default_root_dir)
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        module: Any = pl_module
        asking_s = self._asking_s
        self.tested = [self._completed(one) for one in module.tested]
        info = {**_run_info(module, str(trainer.precision)), "asking_s": round(asking_s, 2)}
        first = self.tested[0]
        first.scores.more["asking_s"] = info["asking_s"]
        if len(self.tested) > 1:
            paths = write_suite(folder, self.tested, info)
        else:
            paths = write_report(folder, first.scores, first.predictions, first.records, first.base, info)
        for logger in trainer.loggers:
            _log_figures(logger, self.tested, trainer.global_step)
        say("\n" + console_table(first.scores))
        if len(self.tested) > 1:
            say("\n" + suite_table(self.tested))
        asked = sum(one.scores.n for one in self.tested)
        say(f"Asked:   {asked} questions in {asking_s:.1f} s, after loading")
        say(f"Report:  {paths['report.html']}")

    def _completed(self, tested: Tested) -> Tested:
        """With what is known of the weights: the overlap of their training set, and their own threshold."""
        scores, predictions = tested.scores, tested.predictions
        scores.more["contamination"] = self._overlap.get(tested.name)
        scores.more["trained_on_test_questions"] = self.test_questions
        as_scored = self.normalisation == "none" and not self.prior_correction
        scores.more["threshold"] = (
            self.calibration.applied(predictions) if self.calibration and as_scored else None
        )
        return tested


def _run_info(module: Any, precision: str) -> dict[str, Any]:
    """What is needed to repeat the run."""
    data = module.data
    return {
        "command": shlex.join(["medqlora", *sys.argv[1:]]),
        "base": module.backend.base,
        "base_identity": module.backend.identity(),
        "adapter": module.evaluated.name,
        "prompt": data.prompt.describe(module.backend.tokenizer()),
        "source": data.source.fingerprint(),
        "benchmarks": [one.fingerprint() for one in data.benchmarks],
        "max_prompt_tokens": data.max_prompt_tokens,
        "precision": precision,
        "seed": data.seed,
        "versions": versions(),
    }


def _log_figures(logger: Any, tested: Sequence[Tested], step: int) -> None:
    """The reports' pictures to TensorBoard; the module has logged the numbers."""
    writer = getattr(logger, "experiment", None)
    if not hasattr(writer, "add_figure"):
        return
    for place, one in enumerate(tested):
        under = logged_under(place, one)
        for name, figure in figures(one.scores, one.predictions).items():
            writer.add_figure(f"{under}/{name}", figure, step, close=False)  # type: ignore[union-attr]
    if len(tested) > 1:
        writer.add_figure("test/suite", suite_figure(tested), step, close=False)  # type: ignore[union-attr]
