"""A few questions with what was answered, for people to read in TensorBoard."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from medqlora.records import Prediction, Record


def log_samples(
    loggers: Iterable[Any],
    predictions: Sequence[Prediction],
    records: Mapping[str, Record],
    step: int,
    count: int = 4,
) -> None:
    """Writes the first `count` questions by id, the same at every validation, to loggers that take text."""
    for logger in loggers:
        writer = getattr(logger, "experiment", None)
        if not hasattr(writer, "add_text"):
            continue
        for prediction in sorted(predictions, key=lambda prediction: prediction.id)[:count]:
            record = records[prediction.id]
            text = f"**{record.question}**\n\ngold: {record.answer} {record.long_answer}\n\n"
            text += f"model: {prediction.text or prediction.decision}"
            writer.add_text(f"val/samples/{prediction.id}", text, step)  # type: ignore[union-attr]
