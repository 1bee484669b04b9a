"""Inference: a loaded model to predictions, and predictions to answers that a person may be shown.

Importing it loads neither torch nor the statistics' libraries: names that need them are imported on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from medqlora.inference.answer import Answer, answer_of, safe_answer
from medqlora.inference.calibration import Calibration, calibrate
from medqlora.inference.rationale import rationale_in
from medqlora.inference.streaming import AnswerPart
from medqlora.inference.training_scope import TrainingScope

if TYPE_CHECKING:
    from medqlora.inference.evaluator import Evaluator, build_evaluator
    from medqlora.inference.predictor import Predictor

__all__ = [
    "Answer",
    "AnswerPart",
    "Calibration",
    "Evaluator",
    "Predictor",
    "TrainingScope",
    "answer_of",
    "build_evaluator",
    "calibrate",
    "rationale_in",
    "safe_answer",
]

_NEED_TORCH = {"Evaluator": "evaluator", "Predictor": "predictor", "build_evaluator": "evaluator"}


def __getattr__(name: str) -> object:
    if name not in _NEED_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_NEED_TORCH[name]}"), name)
