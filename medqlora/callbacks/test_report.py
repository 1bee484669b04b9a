"""The report of `test`: files, figures in TensorBoard, and a table."""

import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger

from medqlora.callbacks.attached import qlora_module, run_folder
from medqlora.callbacks.event_files import EventFiles, tag_of
from medqlora.callbacks.report_context import report_context
from medqlora.callbacks.sessions import log_session
from medqlora.compat.lightning import fast_dev_run
from medqlora.config.callbacks import ReportOptions
from medqlora.data.question_set import QuestionSet
from medqlora.datamodule import PubMedQADataModule
from medqlora.errors import InputError
from medqlora.evaluation import (
    Scores,
    Tested,
    TrainingTrace,
    console_table,
    overlap,
    registered_metrics,
    suite_table,
    write_report,
    write_suite,
)
from medqlora.evaluation.report_data import Contamination
from medqlora.evaluation.verification import limits
from medqlora.inference import Calibration
from medqlora.module import QLoRAModule
from medqlora.trainer.stage_start import Stage
from medqlora.training.live_choice import chosen_live
from medqlora.training.tested_sets import ScoreOptions, log_figures
from medqlora.utils.console import say
from medqlora.utils.files import write_text
from medqlora.utils.versions import versions


class EvaluationReport(Callback):
    """Writes `test_report.json`, `predictions.jsonl`, `predictions_official.json` and `report.html`.

    Args:
        values, options: those of `medqlora.config.ReportOptions`.
    """

    def __init__(self, *values: object, **options: object) -> None:
        settings = ReportOptions(*values, **options)  # type: ignore[arg-type]  # checked where the options are read
        self.allow_overlap = settings.allow_overlap
        self.normalisation = settings.normalisation
        self.prior_correction = settings.prior_correction
        self.live = settings.live
        #: the results of the last test, a question set each
        self.tested: list[Tested] = []
        self._overlap: dict[str, Contamination] = {}
        self._started = self._evaluation_s = 0.0
        #: the tested weights' own, to report how its threshold holds on the questions
        self.calibration: Calibration | None = None
        #: benchmark → the number of its test questions that the tested weights were trained and validated on
        self.test_questions: Mapping[str, Mapping[str, int]] = {}

    @property
    def scores(self) -> Scores:
        """The scores of the last test on the source's own questions."""
        return self.tested[0].scores

    def check_prior(self, sets: Sequence[QuestionSet]) -> None:
        """Raises InputError where the prior is to be corrected and a set has no single prior."""
        for questions in sets:
            if self.prior_correction and questions.content_free is None:
                raise InputError(
                    f"--report.prior_correction true: the questions of {questions.source.name} don't all have the "
                    "same labels, so there is no one prior: leave it out"
                )

    def check_start(
        self, trainer: Trainer, module: QLoRAModule, data: PubMedQADataModule, stage: Stage
    ) -> None:
        """Compares the test questions with the weights' training set, before a model is loaded.

        Raises:
            InputError: a set's test questions were trained on, and that is not allowed; or there is no prior to
                correct.
        """
        if stage != "test":
            return
        weights = module.evaluated
        assert weights is not None
        module.test_options = ScoreOptions(
            self.normalisation,
            self.prior_correction,
            chosen_live(
                self.live, weights, run_folder(trainer).path.parent, data, module.backend.tokenizer()
            ),
            limits(weights.merged.bits),
        )
        self.calibration = weights.calibration
        self.test_questions = weights.test_questions
        self.check_prior(data.sets)
        self.check_overlap(weights.trace(), data.sets)
        registered_metrics()  # a plugin that cannot be imported fails here, not after the evaluation

    def check_overlap(self, trained: TrainingTrace | None, sets: Sequence[QuestionSet]) -> None:
        """Compares the adapter's training set with the test questions.

        Raises:
            InputError: a set's test questions were trained on, and that is not allowed.
        """
        self._overlap = {}
        if trained is None:
            return
        for questions in sets:
            name = questions.source.name
            result = overlap(trained, [questions.own_record(example.id) for example in questions.test])
            self._overlap[name] = result.to_json()
            if result.contaminated and not self.allow_overlap:
                raise InputError(
                    f"--model.adapter: {len(result.contaminated)} of the {result.n} test questions of {name} were in "
                    f"its training set (the first is {result.contaminated[0]}): test on others, or pass "
                    "--report.allow_overlap true to have it reported"
                )

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = time.perf_counter()

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # every prediction of this process is on the host now
        self._evaluation_s = time.perf_counter() - self._started

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        run = run_folder(trainer)
        if not trainer.is_global_zero or fast_dev_run(trainer):
            return
        module = qlora_module(pl_module)
        self.tested = [self._completed(tested) for tested in module.tested]
        seconds = round(self._evaluation_s, 2)
        info = {**_run_info(module, str(trainer.precision)), "asking_s": seconds}
        first = self.tested[0]
        first.scores.more["asking_s"] = seconds
        if module.evaluated is not None and module.evaluated.file is not None:
            first.scores.more["adapter_sha256"] = module.evaluated.sha256(None)
        context = report_context(trainer, module, self._evaluation_s)
        if len(self.tested) > 1:
            paths = write_suite(run.path, self.tested, info, context)
        else:
            answers = (first.scores, first.predictions, first.records, first.base)
            paths = write_report(run.path, *answers, info, context, first.live)
        if (contexts := module.data.index_contexts) is not None:
            write_text(run.path / "retrieved.jsonl", contexts.lines([one.id for one in first.predictions]))
        for logger in trainer.loggers:
            _log_figures(logger, self.tested, trainer.global_step)
        weights = module.evaluated
        record = {"base": module.backend.base} | dict({} if weights is None else weights.record)
        name = "none" if weights is None else weights.name
        log_session(trainer.loggers, "test", name, record, {}, trainer.global_step)
        say("\n" + console_table(first.scores))
        if len(self.tested) > 1:
            say("\n" + suite_table(self.tested))
        count = sum(tested.scores.n for tested in self.tested)
        say(f"Asked:   {count} questions in {self._evaluation_s:.1f} s, after loading")
        say(f"Report:  {paths['report.html']}")

    def _completed(self, tested: Tested) -> Tested:
        """Adds what is known of the weights: their training set's overlap, and how their own threshold holds."""
        scores, predictions = tested.scores, tested.predictions
        scores.more["contamination"] = self._overlap.get(tested.name)
        scores.more["trained_on_test_questions"] = self.test_questions
        as_scored = self.normalisation == "none" and not self.prior_correction
        scores.more["threshold"] = (
            self.calibration.applied(predictions) if self.calibration and as_scored else None
        )
        return tested


def _run_info(module: QLoRAModule, precision: str) -> dict[str, object]:
    """Everything that is needed to repeat the run."""
    data, weights = module.data, module.evaluated
    assert data.prompt is not None
    return {
        "command": shlex.join(["medqlora", *sys.argv[1:]]),
        "base": module.backend.base,
        "base_identity": module.backend.identity(),
        "adapter": None if weights is None else weights.name,
        "prompt": data.prompt.describe(module.backend.tokenizer()),
        "source": data.source.fingerprint(),
        "retrieval": asdict(data.retrieval_options) if data.retrieval is not None else None,
        "benchmarks": [source.fingerprint() for source in data.benchmarks],
        "max_prompt_tokens": data.max_prompt_tokens,
        "precision": precision,
        "seed": data.seed,
        "versions": versions(),
    }


def _log_figures(logger: Logger, tested: Sequence[Tested], step: int) -> None:
    """Logs the reports' figures to TensorBoard; the module has logged the numbers."""
    add_figure = getattr(getattr(logger, "experiment", None), "add_figure", None)
    if add_figure is None:
        return
    tag = tag_of if isinstance(logger, EventFiles) else str

    def add(name: str, figure: object, step: int, close: bool) -> None:
        add_figure(tag(name), figure, step, close=close)

    log_figures(add, tested, step)
