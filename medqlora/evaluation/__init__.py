"""Evaluation: from predictions to scores, and from scores to a report.

The public names of this folder. Importing it loads neither torch nor the statistics' libraries: each name is
imported from its file on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medqlora.evaluation.contamination import Overlap as Overlap
    from medqlora.evaluation.contamination import TrainingTrace as TrainingTrace
    from medqlora.evaluation.contamination import overlap as overlap
    from medqlora.evaluation.contamination import run_hashes as run_hashes
    from medqlora.evaluation.metrics.adjust import normalised as normalised
    from medqlora.evaluation.metrics.adjust import prior_corrected as prior_corrected
    from medqlora.evaluation.metrics.calibration import fit_temperature as fit_temperature
    from medqlora.evaluation.metrics.registry import metric as metric
    from medqlora.evaluation.metrics.registry import registered_metrics as registered_metrics
    from medqlora.evaluation.metrics.scores import Scores as Scores
    from medqlora.evaluation.metrics.scores import decided as decided
    from medqlora.evaluation.metrics.scores import quick_scores as quick_scores
    from medqlora.evaluation.metrics.scores import score as score
    from medqlora.evaluation.metrics.suite_scores import Tested as Tested
    from medqlora.evaluation.parsing.decisions import parse_decision as parse_decision
    from medqlora.evaluation.report.aggregate_page import write_aggregate as write_aggregate
    from medqlora.evaluation.report.console import console_table as console_table
    from medqlora.evaluation.report.files import write_report as write_report
    from medqlora.evaluation.report.plots import figures as figures
    from medqlora.evaluation.report.suite import write_suite as write_suite
    from medqlora.evaluation.report.suite_console import aggregate_table as aggregate_table
    from medqlora.evaluation.report.suite_console import suite_table as suite_table
    from medqlora.evaluation.report.suite_plots import suite_figure as suite_figure
    from medqlora.evaluation.statistics.aggregation import aggregate as aggregate
    from medqlora.evaluation.statistics.aggregation import macro_average as macro_average
    from medqlora.evaluation.validation import ValidationMetrics as ValidationMetrics

_HOMES = {
    "normalised": "metrics.adjust",
    "prior_corrected": "metrics.adjust",
    "write_aggregate": "report.aggregate_page",
    "aggregate": "statistics.aggregation",
    "macro_average": "statistics.aggregation",
    "fit_temperature": "metrics.calibration",
    "console_table": "report.console",
    "Overlap": "contamination",
    "TrainingTrace": "contamination",
    "overlap": "contamination",
    "run_hashes": "contamination",
    "parse_decision": "parsing.decisions",
    "figures": "report.plots",
    "write_report": "report.files",
    "Scores": "metrics.scores",
    "decided": "metrics.scores",
    "quick_scores": "metrics.scores",
    "score": "metrics.scores",
    "write_suite": "report.suite",
    "aggregate_table": "report.suite_console",
    "suite_table": "report.suite_console",
    "suite_figure": "report.suite_plots",
    "Tested": "metrics.suite_scores",
    "metric": "metrics.registry",
    "registered_metrics": "metrics.registry",
    "ValidationMetrics": "validation",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
