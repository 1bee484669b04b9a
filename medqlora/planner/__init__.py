"""The plan of a run: memory by part and phase, and an estimate of its time.

The input is the model's configuration and the lengths of the examples; no weight is loaded.
"""

from medqlora.planner.fitting import Work, fill, with_budget
from medqlora.planner.memory import Plan, Setting, plan
from medqlora.planner.shape import Shape

__all__ = ["Plan", "Setting", "Shape", "Work", "fill", "plan", "with_budget"]
