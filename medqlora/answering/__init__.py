"""Answering: from a prediction to an answer that a person may be shown.

The one public surface of this folder. Before the model is asked, `screen` looks whether a fixed reply is
called for; afterwards `answer_of` says what the model decided, how sure it is, and where it is not sure enough.
Every answer ends with a note. Importing it loads neither torch nor the statistics' libraries.
"""

from medqlora.answering.answer import Answer, answer_of, safe_answer
from medqlora.answering.note import NOTE, check_note
from medqlora.answering.rationale import rationale_in
from medqlora.answering.screen import SafeReply, screen
from medqlora.answering.threshold import Calibration, calibrate, calibrated_probabilities

__all__ = [
    "NOTE",
    "Answer",
    "Calibration",
    "SafeReply",
    "answer_of",
    "calibrate",
    "calibrated_probabilities",
    "check_note",
    "rationale_in",
    "safe_answer",
    "screen",
]
