"""A few validation questions with their answers, as text in TensorBoard."""

from collections.abc import Iterable, Mapping, Sequence

from medqlora.records import Prediction, Record


def log_samples(
    loggers: Iterable[object],
    predictions: Sequence[Prediction],
    records: Mapping[str, Record],
    step: int,
    count: int = 4,
) -> None:
    """Writes the first `count` questions by id to the loggers that take text; they are the same at each validation."""
    for logger in loggers:
        add_text = getattr(getattr(logger, "experiment", None), "add_text", None)
        if add_text is None:
            continue
        for prediction in sorted(predictions, key=lambda prediction: prediction.id)[:count]:
            record = records[prediction.id]
            text = f"**{record.question}**\n\ngold: {record.answer} {record.long_answer}\n\n"
            text += f"model: {prediction.text or prediction.decision}"
            add_text(f"val/samples/{prediction.id}", text, step)
