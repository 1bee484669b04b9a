"""What a run needs before it is begun: memory by part and phase, and how long it may take.

Counted from the model's configuration and the questions' lengths; no weight is loaded.
"""

from medqlora.planner.fitting import Work, fill, with_budget
from medqlora.planner.memory import Plan, Setting, plan
from medqlora.planner.shape import Shape

__all__ = ["Plan", "Setting", "Shape", "Work", "fill", "plan", "with_budget"]
