"""Registered metrics: one file with one decorated function adds a metric to every test report.

    from medqlora.evaluation import metric

    @metric("words", "mean length of the generated text in words")
    def words(predictions, records):
        return sum(len((prediction.text or "").split()) for prediction in predictions) / len(predictions)

The file stands in this folder, or anywhere else: then `MEDQLORA_PLUGINS` names its module, or an entry point of the
group `medqlora.metrics` names its function. Values stand under `metrics` in `test_report.json`, in the terminal's
table and in `report.html`.
"""

import logging
import math
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import NamedTuple, TypeAlias

from medqlora.errors import InputError
from medqlora.evaluation import metrics as folder
from medqlora.evaluation.report_data import MetricValue
from medqlora.records import Prediction, Record
from medqlora.utils.registry import Registry

#: takes predictions as the report compares them and the record of each, in the same order, all with gold answers;
#: gives a number, a few by name, or None where the metric does not apply
MetricFunction: TypeAlias = Callable[
    [Sequence[Prediction], Sequence[Record]], float | Mapping[str, float] | None
]


class Metric(NamedTuple):
    """A pure function and its help: what it is, its range, and which way is better, in a line."""

    compute: MetricFunction
    help: str


METRICS: Registry[Metric] = Registry("metric", "medqlora.metrics")
_LOG = logging.getLogger(__name__)


def metric(name: str, help: str) -> Callable[[MetricFunction], Metric]:
    """A decorator that registers a function of (predictions, records) under `name`.

    Raises:
        ValueError: another metric has this name.
    """

    def register(compute: MetricFunction) -> Metric:
        registered = Metric(compute, help)
        METRICS.add(name, registered)
        return registered

    return register


def registered_metrics() -> dict[str, Metric]:
    """Name → metric of this folder's files and of plugins.

    Raises:
        InputError: a plugin cannot be imported, or gives something else than a metric.
    """
    for module in pkgutil.iter_modules(folder.__path__):
        import_module(f"{folder.__name__}.{module.name}")
    entries = dict(METRICS)
    for name, entry in entries.items():
        if not isinstance(entry, Metric):
            raise InputError(
                f"the entry point {name} of {METRICS.group} is no metric: decorate its function with "
                "medqlora.evaluation.metric"
            )
    return entries


def registered_values(
    predictions: Sequence[Prediction], records: Sequence[Record]
) -> dict[str, MetricValue | None]:
    """Name → value of each registered metric; None where it does not apply.

    A metric that fails is None too, with a warning: it must not cost the report of a long evaluation.
    """
    return {name: _value(name, entry, predictions, records) for name, entry in registered_metrics().items()}


def _value(
    name: str, entry: Metric, predictions: Sequence[Prediction], records: Sequence[Record]
) -> MetricValue | None:
    try:
        value = entry.compute(predictions, records)
        if value is None:
            return None
        if isinstance(value, Mapping):
            return {str(part): _finite(number) for part, number in value.items()}
        return _finite(value)
    except Exception as error:  # whatever the code of someone else raises
        _LOG.warning("metric '%s' is left out of the report: %s: %s", name, type(error).__name__, error)
        return None


def _finite(value: float) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{number} is no finite number")
    return number
