"""`aggregate_report.json`: what a report of several runs holds."""

from typing import Literal, TypeAlias, TypedDict

from medqlora.evaluation.report_data import Interval, MetricName


class Spread(TypedDict):
    """A metric over several runs; `mean_ci95` is Student's t interval, `sd` has n - 1 in its denominator."""

    mean: float
    sd: float | None
    mean_ci95: Interval | None
    min: float
    max: float
    each: list[float]


class RunRow(TypedDict):
    """One run of several."""

    adapter: str | None
    seed: int | None
    accuracy: float
    accuracy_ci95: Interval
    macro_f1: float | None
    difference: float | None
    difference_ci95: Interval | None
    mcnemar_p: float | None


class BaseRow(TypedDict):
    """The base model of several runs; `same_in_all`: every report has this accuracy."""

    accuracy: float
    accuracy_ci95: Interval
    macro_f1: float | None
    macro_f1_ci95: Interval | None
    same_in_all: bool


AggregateName: TypeAlias = Literal[MetricName, "difference"]


class Aggregate(TypedDict, total=False):
    """`aggregate_report.json`: `metrics` names those of the keys after it that are present."""

    runs: int
    dataset: str | None
    split: str | None
    n: int
    adapters: list[str | None]
    spread: str
    base: BaseRow | None
    each: list[RunRow]
    metrics: list[AggregateName]
    accuracy: Spread
    token_f1: Spread
    rouge_l: Spread
    macro_f1: Spread
    ece: Spread
    brier: Spread
    nll: Spread
    aurc: Spread
    unparsed_fraction: Spread
    difference: Spread
    suite: "AggregateSuite"


class AggregateSuite(TypedDict):
    """Several runs on several question sets."""

    macro_average: Spread
    sets: dict[str, Aggregate]
