"""Inference: from a loaded model to predictions, and from a prediction to an answer that a person may be shown.

Importing this loads neither torch nor the statistics' libraries.
"""

from medqlora.inference.answer import Answer, answer_of, safe_answer
from medqlora.inference.calibration import Calibration, calibrate, calibrated_probabilities
from medqlora.inference.rationale import rationale_in

__all__ = [
    "Answer",
    "Calibration",
    "answer_of",
    "calibrate",
    "calibrated_probabilities",
    "rationale_in",
    "safe_answer",
]
