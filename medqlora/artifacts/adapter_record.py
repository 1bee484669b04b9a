"""The content of `medqlora.json` in an adapter folder."""

from collections.abc import Mapping
from typing import TypedDict

from typing_extensions import NotRequired


class TrainingFigures(TypedDict):
    """How the adapter was trained; `step` is the optimizer step of its weights."""

    step: int
    of_steps: int
    epochs: int | None
    batch_size: int
    learning_rate: float
    optimizer: str
    precision: str
    seed: int


class AdapterRecord(TypedDict):
    """`medqlora.json` in an adapter folder, its keys in their order.

    Attributes:
        base, base_identity, backend, backend_options: the base model, and how it was loaded.
        lora: the fields of `LoRAOptions`.
        prompt: see `Prompt.describe`.
        data: the source's name and fingerprint, and figures of the training set.
        train_ids, dev_ids: ids of the training and the validation records.
        test_questions: benchmark → set → the number of its test questions among them; empty for most.
        labels: the decisions for questions without options.
        training: see `TrainingFigures`.
        scores: the validation scores of these weights.
        calibration: the temperature and threshold of their answers, see `medqlora.inference`; None without validation.
        calibrated_on: the questions that it was fitted on, where these are not the validation questions: `kind` and
            `folds` of a cross-validation.
        chosen_by: the score that chose them: `score` and `value`.
        parameters: the numbers of `trainable` and of all (`total`) parameters.
        versions: of the packages.
        created: a UTC time.
        combined: of an adapter that `medqlora combine` made: `method` and `members`.
    """

    base: str
    base_identity: str
    backend: str
    backend_options: dict[str, object]
    lora: dict[str, object]
    prompt: dict[str, object]
    data: dict[str, object]
    train_ids: list[str]
    dev_ids: list[str]
    test_questions: Mapping[str, Mapping[str, int]]
    labels: list[str]
    training: TrainingFigures
    scores: dict[str, float]
    calibration: Mapping[str, object] | None
    chosen_by: dict[str, object]
    parameters: dict[str, int]
    versions: dict[str, str]
    created: str
    calibrated_on: NotRequired[Mapping[str, object]]
    combined: NotRequired[Mapping[str, object]]
