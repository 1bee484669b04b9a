"""Evaluation: from a model to predictions, from predictions to scores, from scores to a report.

The one public surface of this folder. Importing it loads neither torch nor the statistics' libraries:
each name is fetched from its file when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medqlora.evaluation.adjust import normalised as normalised
    from medqlora.evaluation.adjust import prior_corrected as prior_corrected
    from medqlora.evaluation.aggregate_page import write_aggregate as write_aggregate
    from medqlora.evaluation.aggregation import aggregate as aggregate
    from medqlora.evaluation.aggregation import macro_average as macro_average
    from medqlora.evaluation.calibration import fit_temperature as fit_temperature
    from medqlora.evaluation.console import console_table as console_table
    from medqlora.evaluation.contamination import Overlap as Overlap
    from medqlora.evaluation.contamination import TrainingTrace as TrainingTrace
    from medqlora.evaluation.contamination import overlap as overlap
    from medqlora.evaluation.contamination import run_hashes as run_hashes
    from medqlora.evaluation.decisions import parse_decision as parse_decision
    from medqlora.evaluation.plots import figures as figures
    from medqlora.evaluation.report import write_report as write_report
    from medqlora.evaluation.scores import Scores as Scores
    from medqlora.evaluation.scores import decided as decided
    from medqlora.evaluation.scores import quick_scores as quick_scores
    from medqlora.evaluation.scores import score as score
    from medqlora.evaluation.suite import write_suite as write_suite
    from medqlora.evaluation.suite_console import aggregate_table as aggregate_table
    from medqlora.evaluation.suite_console import suite_table as suite_table
    from medqlora.evaluation.suite_plots import suite_figure as suite_figure
    from medqlora.evaluation.suite_scores import Tested as Tested

_HOMES = {
    "normalised": "adjust",
    "prior_corrected": "adjust",
    "write_aggregate": "aggregate_page",
    "aggregate": "aggregation",
    "macro_average": "aggregation",
    "fit_temperature": "calibration",
    "console_table": "console",
    "Overlap": "contamination",
    "TrainingTrace": "contamination",
    "overlap": "contamination",
    "run_hashes": "contamination",
    "parse_decision": "decisions",
    "figures": "plots",
    "write_report": "report",
    "Scores": "scores",
    "decided": "scores",
    "quick_scores": "scores",
    "score": "scores",
    "write_suite": "suite",
    "aggregate_table": "suite_console",
    "suite_table": "suite_console",
    "suite_figure": "suite_plots",
    "Tested": "suite_scores",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
