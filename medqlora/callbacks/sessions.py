"""A run's row in TensorBoard's HPARAMS: the adapter's options, and its final scores."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from medqlora.artifacts.card_metadata import hub_name
from medqlora.callbacks.event_files import EventFiles

#: every column of options → a value of its type, in their order
COLUMNS: Mapping[str, str | float] = {
    "command": "",
    "base": "",
    "adapter": "",
    "data": "",
    "train_questions": 0.0,
    "prompt": "",
    "lora_r": 0.0,
    "lora_alpha": 0.0,
    "lora_dropout": 0.0,
    "learning_rate": 0.0,
    "optimizer": "",
    "batch_size": 0.0,
    "epochs": 0.0,
    "steps": 0.0,
    "precision": "",
    "seed": 0.0,
}
#: the scores among them: of a fit those of its best weights, of a test those of its report
METRICS = (
    *(f"best/{name}" for name in ("accuracy", "likelihood_accuracy", "macro_f1", "token_f1", "ece", "loss")),
    *(f"test/{name}" for name in ("accuracy", "macro_f1", "base_accuracy", "token_f1", "ece")),
    "throughput/run_tokens_per_s",
)


def log_session(
    loggers: Iterable[object],
    command: str,
    adapter: str,
    record: Mapping[str, object],
    scores: Mapping[str, float],
    step: int,
) -> None:
    """Writes the row of a fit or a test.

    Args:
        loggers: the run's; those that write no event files of ours are left out.
        command: "fit" or "test".
        adapter: names the weights.
        record: the adapter's (`AdapterRecord`); {} where it has none.
        scores: among `METRICS` those to log with it.
        step: of the weights.
    """
    short = "/".join(Path(adapter).parts[-2:])  # of a path its end, by which adapters differ
    options = {"command": command, "adapter": short, **options_of(record)}
    for logger in loggers:
        if isinstance(logger, EventFiles):
            logger.log_session(options, COLUMNS, METRICS, scores, step)


def best_scores(record: Mapping[str, object]) -> dict[str, float]:
    """The validation scores of the record's weights, by their names among `METRICS`."""
    scores = record.get("scores")
    named = {} if not isinstance(scores, Mapping) else scores
    found = {f"best/{str(name).removeprefix('val/')}": value for name, value in named.items()}
    return {name: float(value) for name, value in found.items() if name in METRICS}


def options_of(record: Mapping[str, object]) -> dict[str, str | float]:
    """The record's options by their column; those that it lacks are left out."""

    def part(key: str) -> Mapping[str, object]:
        value = record.get(key)
        return value if isinstance(value, Mapping) else {}

    lora, training, data = part("lora"), part("training"), part("data")
    values = {
        "base": hub_name(str(record.get("base", "")), str(record.get("backend", ""))),
        "data": data.get("name"),
        "train_questions": data.get("train_questions"),
        "prompt": part("prompt").get("name"),
        "lora_r": lora.get("r"),
        "lora_alpha": lora.get("alpha"),
        "lora_dropout": lora.get("dropout"),
        "steps": training.get("of_steps"),
        **{key: training.get(key) for key in ("learning_rate", "optimizer", "batch_size", "epochs")},
        **{key: training.get(key) for key in ("precision", "seed")},
    }
    return {
        name: float(value) if isinstance(value, (int, float)) else str(value)
        for name, value in values.items()
        if value is not None and isinstance(value, str) == isinstance(COLUMNS[name], str)
    }
