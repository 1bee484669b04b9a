"""What a validation's accuracy is to be read against: the bare base model, and always the most frequent answer."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from medqlora.evaluation.metrics.enough import margin
from medqlora.records import Prediction


class Baselines(NamedTuple):
    """Accuracies on the validation questions, 0 to 1.

    Attributes:
        majority: always the most frequent right answer.
        base: the base model without the adapter, by label likelihood; None where it was not asked.
    """

    majority: float
    base: float | None

    @classmethod
    def of(cls, predictions: Sequence[Prediction], base: Sequence[Prediction]) -> "Baselines | None":
        """Those of a validation; None for free answers.

        Args:
            predictions: all of the validation.
            base: the base model's, in any order; may be empty.
        """
        if not predictions or not all(one.labels for one in predictions):
            return None
        [(_, most)] = Counter(one.gold for one in predictions).most_common(1)
        right = sum(one.decision == one.gold for one in base)
        return cls(most / len(predictions), right / len(base) if base else None)

    def logged(self) -> dict[str, float]:
        """Names and values for the loggers: straight lines beside the validation's curves."""
        values = {"val/majority_accuracy": self.majority}
        return values if self.base is None else {**values, "val/base_accuracy": self.base}


def validation_line(
    step: int, metrics: Mapping[str, float], baselines: Baselines | None, questions: str, count: int
) -> str:
    """The line of one validation: its accuracy with what it is to be compared with.

    Args:
        step: the optimizer step of the weights.
        metrics: the validation's, "val/accuracy" among them.
        baselines: of the same questions; None for free answers.
        questions: "questions", or what they are a sample of.
        count: of the questions.
    """
    if baselines is None:
        shown = [
            f"{name} {metrics[f'val/{key}']:.3f}" for key, name in _FREE.items() if f"val/{key}" in metrics
        ]
        return f"Validation at step {step}: {', '.join(shown) or 'no score'} ({count} {questions})"
    accuracy, by_label = metrics["val/accuracy"], metrics.get("val/likelihood_accuracy")
    parts = [f"accuracy {accuracy:.3f}"]
    if "val/unparsed_fraction" in metrics and by_label is not None:
        parts[0] += f" of the text, {by_label:.3f} by likelihood"
    if baselines.base is not None:
        parts.append(f"bare base {baselines.base:.3f} by likelihood")
    parts.append(f"always the majority {baselines.majority:.3f}")
    return f"Validation at step {step}: {'; '.join(parts)} (±{margin(count):.2f} on {count} {questions})"


_FREE = {"token_f1": "token F1", "rouge_l": "ROUGE-L", "accuracy": "exact match", "loss": "loss"}
