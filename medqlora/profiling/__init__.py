"""Measurements of a training step's speed and memory, of this project's engines and of other trainers.

Weights and tokens are random, with a real model's shape and PubMedQA's lengths: the cost of a step is the same.
Each case runs in a process of its own (`processes`). This package imports nothing heavy, so that
`medqlora bench --help` answers at once.
"""

from medqlora.profiling.case import Case
from medqlora.profiling.processes import run_case
from medqlora.profiling.shapes import SHAPES, configuration_values

__all__ = ["SHAPES", "Case", "configuration_values", "run_case"]
