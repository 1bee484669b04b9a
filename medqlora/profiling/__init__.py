"""Speed and memory of a training step, measured: of this project's engines, and of other trainers beside them.

Weights are random and texts are random tokens, of a real model's shape and PubMedQA's lengths: neither
changes what a step costs. Each case runs in a process of its own (`processes`), so that nothing of one
weighs on the next. Nothing heavy is imported here: `medqlora bench --help` answers at once.
"""

from medqlora.profiling.case import Case
from medqlora.profiling.processes import run_case
from medqlora.profiling.shapes import SHAPES, configuration_values

__all__ = ["SHAPES", "Case", "configuration_values", "run_case"]
