"""The fused engine: packed training steps and scoring of Llama-like 4-bit models.

It knows models and micro-batches; it knows neither options nor Lightning.
"""

from medqlora.fused.decoder import Checkpointing, FusedDecoder
from medqlora.fused.step_graphs import StepGraphs, why_no_graphs
from medqlora.fused.support import unsupported

__all__ = ["Checkpointing", "FusedDecoder", "StepGraphs", "unsupported", "why_no_graphs"]
