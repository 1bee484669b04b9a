"""The data of `test_report.json`, `predictions.jsonl` and `aggregate_report.json`: the shape of each block.

Shares and probabilities are 0 to 1; an interval is [low, high] at 95%; None stands where a value cannot be known.
A key that is absent was not computed. `Scores` documents the contract's keys, and `aggregate` those of several runs.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias, TypedDict

from typing_extensions import NotRequired

from medqlora.evaluation.retrieval_data import RetrievalBlock

Interval: TypeAlias = list[float]
#: log p(label) of a content-free prompt, in nats: in the order of the labels, or by label
Prior: TypeAlias = Sequence[float] | Mapping[str, float]
DecidedBy: TypeAlias = Literal["likelihood", "generation", "exact_match"]
#: a registered metric's value, or several by name
MetricValue: TypeAlias = float | dict[str, float]


class ClassScores(TypedDict):
    """One label: `support` counts gold items, `predicted` decisions."""

    precision: float
    recall: float
    f1: float
    support: int
    predicted: int


class ConfusionMatrix(TypedDict):
    """Counts; the last column holds what could not be parsed."""

    rows_gold: list[str]
    columns_decision: list[str]
    counts: list[list[int]]


class Group(TypedDict, total=False):
    """Accuracy of a topic or of a range of prompt lengths (tokens, `above` exclusive, `up_to` inclusive)."""

    group: str
    n: int
    accuracy: float
    accuracy_ci95: Interval
    merged_groups: int
    above: int
    up_to: int


class CalibrationBin(TypedDict):
    """A bin of the reliability diagram."""

    low: float
    high: float
    n: int
    confidence: float | None
    accuracy: float | None
    accuracy_ci95: Interval | None


class CalibrationBins(TypedDict):
    """The reliability diagram."""

    bins: list[CalibrationBin]


class CalibrationScores(TypedDict):
    """Calibration of label probabilities; NLL in nats."""

    ece: float
    brier: float
    nll: float


class Calibration(CalibrationScores):
    """The same with its bins."""

    bins: list[CalibrationBin]


class Temperature(TypedDict):
    """The temperature from validation questions, and the test's calibration before and after it.

    `why_not_fitted`: a clause where the questions support none and the value is 1, see `supported_temperature`.
    """

    value: float
    why_not_fitted: str | None
    fitted_on: int
    before: CalibrationScores
    after: CalibrationScores
    bins_after: list[CalibrationBin]


class Selective(TypedDict):
    """Selective prediction; `curve` has points [coverage, risk]."""

    aurc: float
    coverage: float
    answered: int
    accuracy_at_coverage: float
    confidence_at_coverage: float
    curve: list[list[float]]


class Threshold(TypedDict):
    """How the confidence threshold saved with an adapter holds on these questions."""

    threshold: float
    temperature: float
    target_risk: float
    n: int
    answered: int
    wrong: int
    risk: float | None
    risk_ci95: Interval | None


class LabelThreshold(TypedDict):
    """Decisions with a threshold for the rarest label, which validation questions set; argmax stays the headline."""

    label: str
    threshold: float
    fitted_on: int
    decided: int
    decided_by_argmax: int
    accuracy: float
    accuracy_ci95: Interval
    macro_f1: float
    macro_f1_ci95: Interval
    mcnemar_p: float


class Rationale(TypedDict):
    """Wording that generated rationales share with the reference."""

    rouge_l: float
    n: int
    without_rationale: int
    note: str


class Pairs(TypedDict):
    """Questions by who is right."""

    both_right: int
    only_this_right: int
    only_base_right: int
    both_wrong: int


class Comparison(TypedDict, total=False):
    """This model minus the base model on the same questions."""

    difference: float
    difference_ci95: Interval
    difference_method: str
    macro_f1_difference: float
    macro_f1_difference_ci95: Interval
    mcnemar_p: float
    pairs: Pairs
    token_f1_difference: float
    token_f1_difference_ci95: Interval


class Accuracies(TypedDict, total=False):
    """What a model, its generated text, the base model and human annotators all have."""

    n: int
    accuracy: float
    accuracy_ci95: Interval
    macro_f1: float | None
    macro_f1_ci95: Interval | None
    unparsed_fraction: float | None


class LabelScores(Accuracies, total=False):
    """Scores of decisions among labels."""

    per_class: dict[str, ClassScores] | None
    confusion_matrix: ConfusionMatrix | None
    majority_accuracy: float | None


class GenerationScores(LabelScores, total=False):
    """Scores of the decisions parsed from generated text."""

    agreement_with_likelihood: float


class TextScores(Accuracies, total=False):
    """Scores of free answers: overlap of wording with the reference."""

    token_f1: float
    token_f1_ci95: Interval
    rouge_l: float
    rouge_l_ci95: Interval


class ModelScores(LabelScores, TextScores, total=False):
    """What a model has with or without an adapter. `metrics`: those that plugins registered."""

    ece: float | None
    brier: float | None
    nll: float | None
    aurc: float | None
    calibration: CalibrationBins | None
    selective: Selective | None
    generation: GenerationScores | None
    rationale: Rationale | None
    metrics: dict[str, MetricValue | None]


class BaseScores(ModelScores, Comparison, total=False):
    """The base model's scores and the comparison with it."""


class SharedQuestion(TypedDict):
    """How many of a test question's 13-word runs the training texts contain."""

    id: str
    shared: int
    runs: int
    share: float


class SharedImages(TypedDict):
    """Test questions whose image was trained on, with another question."""

    questions: int
    same_file: int
    near_duplicates: int
    examples: list[str]


class Contamination(TypedDict):
    """What training and test set have in common."""

    run_words: int
    flagged_share: float
    n: int
    shared_ids: list[str]
    questions_sharing_a_run: int
    contaminated: list[str]
    most_shared: list[SharedQuestion]
    images: NotRequired[SharedImages]


class MacroAverage(TypedDict):
    """The mean over question sets, each counting the same."""

    accuracy: float
    accuracy_ci95: Interval
    base_accuracy: float | None
    difference: float | None
    difference_ci95: Interval | None


class LiveComparison(TypedDict, total=False):
    """An exported model against the live adapter on the same questions, see `medqlora.evaluation.verification`."""

    n: int
    mean_difference: float
    largest_difference: float
    mean_kl: float
    changed: list[dict[str, object]]
    live_accuracy: float | None
    live_accuracy_ci95: Interval | None
    exported_accuracy: float | None
    exported_accuracy_ci95: Interval | None
    accuracy_difference: float | None
    accuracy_difference_ci95: Interval | None
    mcnemar_p: float | None
    pairs: Pairs | None
    source: str


class PairedRow(TypedDict):
    """One model beside the reference; differences are this model's minus the reference's.

    Attributes:
        name: of the model.
        n, accuracy, accuracy_ci95, macro_f1, macro_f1_ci95: on the questions.
        difference, difference_ci95: in accuracy, Newcombe's paired interval; None for the reference.
        macro_f1_difference, macro_f1_difference_ci95: paired bootstrap; None for the reference.
        mcnemar_p, mcnemar_p_holm: exact, and adjusted for the number of models; None for the reference.
        pairs: "this" is the model, "base" the reference; None for the reference.
    """

    name: str
    n: int
    accuracy: float
    accuracy_ci95: Interval
    macro_f1: float
    macro_f1_ci95: Interval
    difference: float | None
    difference_ci95: Interval | None
    macro_f1_difference: float | None
    macro_f1_difference_ci95: Interval | None
    mcnemar_p: float | None
    mcnemar_p_holm: float | None
    pairs: Pairs | None


class Report(ModelScores, total=False):
    """`test_report.json`."""

    adapter_sha256: str
    live: LiveComparison
    gguf: dict[str, object]

    decided_by: DecidedBy
    human_accuracy: dict[str, float] | None
    base: BaseScores | None
    mcnemar_p: float | None
    by_topic: list[Group]
    dataset: str | None
    split: str | None
    prompt_sha256: str | None
    adapter: str | None
    seed: int
    normalisation: Literal["none", "length"] | None
    prior: Prior | None
    base_prior: Prior | None
    label_mass: float | None
    temperature: Temperature | None
    human: dict[str, Accuracies]
    by_context_length: list[Group]
    labels: list[str]
    intervals: str
    exact_match: float
    exact_match_ci95: Interval
    note: str
    contamination: Contamination | None
    topic_kind: str
    sample: dict[str, int] | None
    trained_on_test_questions: Mapping[str, Mapping[str, int]]
    threshold: Threshold | None
    label_threshold: LabelThreshold | None
    asking_s: float
    retrieval: RetrievalBlock
    side_by_side: list[PairedRow]
    suite: "Suite"


class Suite(TypedDict):
    """The `suite` of `test_report.json`: several question sets."""

    macro_average: MacroAverage
    n: int
    intervals: str
    mcnemar_p_holm: dict[str, float]
    holm: str
    sets: dict[str, Report]


class AnswerLine(TypedDict, total=False):
    """One model's answer to a question in `predictions.jsonl`."""

    decision: str | None
    right: bool
    confidence: float | None
    probabilities: dict[str, float] | None
    logprobs: dict[str, float] | None
    label_mass: float | None
    text: str | None
    parsed: str | None
    token_f1: float
    rouge_l: float
    exact_match: bool


class PredictionLine(AnswerLine, total=False):
    """A line of `predictions.jsonl`."""

    id: str
    question: str
    gold: str | None
    context_tokens: int
    base: AnswerLine
    human: dict[str, str]


MetricName: TypeAlias = Literal[
    "accuracy",
    "token_f1",
    "rouge_l",
    "macro_f1",
    "ece",
    "brier",
    "nll",
    "aurc",
    "unparsed_fraction",
]
#: the numbers of a report that go to loggers
LoggedName: TypeAlias = Literal[MetricName, "mcnemar_p", "n"]
