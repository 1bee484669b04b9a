"""From the predictions of `test` to its report: files, figures in TensorBoard, and a table."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from medqlora.console import say
from medqlora.errors import InputError
from medqlora.evaluation import Scores, TrainingTrace, console_table, figures, overlap, score, write_report
from medqlora.export import TRACE_FILE, versions
from medqlora.records import Prediction, Record


class EvaluationReport(Callback):
    """Writes `test_report.json`, `predictions.jsonl`, `predictions_official.json` and `report.html`.

    Args:
        allow_overlap: report test questions that the adapter was trained on instead of refusing them.
    """

    def __init__(self, allow_overlap: bool = False) -> None:
        self.allow_overlap = allow_overlap
        #: the scores of the last test
        self.scores: Scores | None = None
        self._overlap: dict[str, Any] | None = None

    def check_overlap(self, adapter: str | None, questions: Sequence[Record]) -> None:
        """Compares what the adapter was trained on with the test questions; before a model is loaded.

        Raises:
            InputError: questions of the test set were trained on, and that is not allowed.
        """
        trace = Path(adapter or "none") / TRACE_FILE
        if not trace.is_file():
            return
        found = overlap(TrainingTrace.load(trace), questions)
        self._overlap = found.to_json()
        if found.contaminated and not self.allow_overlap:
            raise InputError(
                f"--model.adapter: {len(found.contaminated)} of the {found.n} test questions were in its training "
                f"set (the first is {found.contaminated[0]}): test on others, or pass --report.allow_overlap true "
                "to have it reported"
            )

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        module: Any = pl_module
        data = module.data
        predictions = in_order(module.test_predictions, data.test)
        base = in_order(module.base_predictions, data.test) if module.base_predictions else None
        records = [data.records[one.id] for one in predictions]
        prompt = data.prompt.describe(module.backend.tokenizer())
        adapter = module.checkpoint or module.adapter or "none"
        self.scores = score(
            predictions,
            records=records,
            base=base,
            dev=module.dev_predictions or None,
            seed=data.seed,
            dataset=data.source.name,
            split="test",
            prompt_sha256=prompt["sha256"],
            adapter=adapter,
        )
        self.scores.more["contamination"] = self._overlap
        folder = Path(str(trainer.log_dir))
        info = {
            "command": shlex.join(["medqlora", *sys.argv[1:]]),
            "base": module.backend.base,
            "base_identity": module.backend.identity(),
            "adapter": adapter,
            "prompt": prompt,
            "source": data.source.fingerprint(),
            "max_prompt_tokens": data.max_prompt_tokens,
            "precision": str(trainer.precision),
            "seed": data.seed,
            "versions": versions(),
        }
        paths = write_report(folder, self.scores, predictions, records, base, info)
        for logger in trainer.loggers:
            _log(logger, self.scores, predictions, trainer.global_step)
        say("\n" + console_table(self.scores))
        say(f"Report:  {paths['report.html']}")


def in_order(predictions: list[Prediction], examples: list[Any]) -> list[Prediction]:
    """The predictions in the order of the data set; evaluation asks by length."""
    place = {example.id: number for number, example in enumerate(examples)}
    return sorted(predictions, key=lambda prediction: place[prediction.id])


def _log(logger: Any, scores: Scores, predictions: list[Prediction], step: int) -> None:
    """The report's figures to a logger: numbers to any, pictures to TensorBoard."""
    report = scores.to_json()
    names = ("accuracy", "macro_f1", "ece", "brier", "nll", "aurc", "unparsed_fraction", "mcnemar_p")
    metrics = {f"test/{name}": float(report[name]) for name in names if report[name] is not None}
    if scores.base:
        metrics["test/base_accuracy"] = float(scores.base["accuracy"])
    logger.log_metrics(metrics, step=step)
    writer = getattr(logger, "experiment", None)
    if hasattr(writer, "add_figure"):
        for name, figure in figures(scores, predictions).items():
            writer.add_figure(f"test/{name}", figure, step, close=False)  # type: ignore[union-attr]
