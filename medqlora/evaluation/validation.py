"""Validation metrics with state that is synchronized over processes, from torchmetrics.

Each value equals `evaluation`'s own to 1e-6 (`quick_scores`, `calibration`), which a test holds. Three choices
make that so:

- A generated answer without a readable decision is one more class, so it counts as wrong. Macro-F1 averages
  over the task's labels alone; torchmetrics' own macro average drops classes that never occur.
- The calibration error is the binary one of (confidence, right): torchmetrics' multiclass class rounds
  confidences to float32 and gives a confidence of 1.0 a bin of its own.
- States are float64.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import MeanMetric, Metric, MetricCollection
from torchmetrics.classification import (
    BinaryCalibrationError,
    MulticlassAccuracy,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
)

from medqlora.evaluation.metrics.calibration import BINS, top_probability
from medqlora.evaluation.metrics.free_answer import answer_scores
from medqlora.records import Prediction
from medqlora.utils.distributed_errors import together

#: prefixes of the names: decisions read from generated text, and decisions by label likelihood
GENERATED, LIKELIHOOD = "", "likelihood_"
_FREE = ("accuracy", "token_f1", "rouge_l")
#: target of an item that torchmetrics leaves out
_IGNORED = -1
#: the largest float64 below 1: the last bin is closed at 1
_BELOW_ONE = math.nextafter(1.0, 0.0)


def labels_of(predictions: Sequence[Prediction]) -> tuple[str, ...]:
    """All labels of a set's predictions, in the order in which they come; () for free answers."""
    return tuple(dict.fromkeys(label for prediction in predictions for label in prediction.labels))


class ValidationMetrics:
    """Accumulates predictions and computes the scores of all processes' predictions.

    Args:
        labels: labels of all questions of the set, the same in every process; empty for free answers.
        device: where the states live. With NCCL it has to be this process's GPU.
    """

    def __init__(self, labels: Sequence[str], device: torch.device | str = "cpu") -> None:
        self.labels = tuple(labels)
        self._index: dict[str | None, int] = {label: index for index, label in enumerate(self.labels)}
        self._index[None] = len(self.labels)
        self._decisions: dict[str, MetricCollection] = {}
        self._answers: dict[str, Metric] = {}
        self._calibration = BinaryCalibrationError(n_bins=BINS, norm="l1", ignore_index=_IGNORED)
        if self.labels:
            self._decisions = {kind: self._decision_metrics() for kind in (GENERATED, LIKELIHOOD)}
        else:
            self._answers = {name: MeanMetric() for name in _FREE}
        for metric in self._metrics():
            metric.set_dtype(torch.float64).to(device)
        self._device = torch.device(device)

    def update(self, predictions: Sequence[Prediction]) -> None:
        """Adds predictions; every question exactly once over all processes."""
        if not self.labels:
            scores = [answer_scores(one) for one in predictions if one.text is not None]
            self._answers["accuracy"].update(self._floats([row["exact_match"] for row in scores]))
            self._answers["token_f1"].update(self._floats([row["token_f1"] for row in scores]))
            self._answers["rouge_l"].update(self._floats([row["rouge_l"] for row in scores]))
            return
        decisions = {
            GENERATED: [(one.parsed, one.gold) for one in predictions if one.text is not None],
            LIKELIHOOD: [(one.decision, one.gold) for one in predictions if one.logprobs],
        }
        for kind, pairs in decisions.items():
            if pairs:  # torchmetrics cannot reshape an empty update
                decided, gold = ([self._index[pair[side]] for pair in pairs] for side in (0, 1))
                self._decisions[kind].update(self._integers(decided), self._integers(gold))
        scored = [one for one in predictions if one.logprobs]
        if scored:
            confidence = [min(top_probability(one), _BELOW_ONE) for one in scored]
            right = [int(one.decision == one.gold) for one in scored]
            self._calibration.update(self._floats(confidence), self._integers(right))

    def compute(self) -> dict[str, float]:
        """The scores over all processes; every process has to call it, and gets the same values.

        Returns:
            `quick_scores`' names, and `ece` where label likelihoods were scored. A key is absent where nothing
            was generated or scored.

        Raises:
            LostProcessError: another process has ended or does not answer.
        """
        self._count_ignored()
        with together():
            if not self.labels:
                values = {name: float(metric.compute()) for name, metric in self._answers.items()}
                return {name: value for name, value in values.items() if not math.isnan(value)}
            scores: dict[str, float] = {}
            for kind, metrics in self._decisions.items():
                computed = metrics.compute()
                counts: Tensor = computed["confusion_matrix"]
                if not counts.sum():
                    continue
                scores[f"{kind}accuracy"] = float(computed["accuracy"])
                scores[f"{kind}macro_f1"] = float(computed["f1"][:-1].mean())
                if kind == GENERATED:
                    scores["unparsed_fraction"] = float(counts[:, -1].sum() / counts.sum())
            ece = float(self._calibration.compute())
            return scores if math.isnan(ece) else {**scores, "ece": ece}

    def confusion_matrix(self, kind: str = LIKELIHOOD) -> list[list[int]]:
        """Counts over all processes: a row for each gold label, a column for each decision, the last unparsed.

        Every process has to call it, after `compute`.
        """
        with together():
            counts: Tensor = self._decisions[kind]["confusion_matrix"].compute()
        return [[int(count) for count in row] for row in counts[:-1].tolist()]

    def reset(self) -> None:
        """Forgets all predictions."""
        for metric in self._metrics():
            metric.reset()

    def _count_ignored(self) -> None:
        """Adds an item that no metric counts: a process without questions computes too, and without a warning.

        It also gives list states their dtype, which has to be the same in every process.
        """
        ignored = self._integers([_IGNORED])
        for metrics in self._decisions.values():
            metrics.update(self._integers([0]), ignored)
        self._calibration.update(self._floats([0.0]), ignored)
        for metric in self._answers.values():
            metric.update(self._floats([]))

    def _decision_metrics(self) -> MetricCollection:
        classes = len(self.labels) + 1
        return MetricCollection(
            {
                "accuracy": MulticlassAccuracy(classes, average="micro", ignore_index=_IGNORED),
                "f1": MulticlassF1Score(classes, average="none", ignore_index=_IGNORED),
                "confusion_matrix": MulticlassConfusionMatrix(classes, ignore_index=_IGNORED),
            },
            compute_groups=False,
        )

    def _metrics(self) -> list[Metric]:
        groups = [metric for group in self._decisions.values() for metric in group.values()]
        return [*groups, *self._answers.values(), self._calibration]

    def _integers(self, values: Sequence[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self._device)

    def _floats(self, values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64, device=self._device)
