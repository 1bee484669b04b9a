"""The callbacks of every run, and its plugin for checkpoint files."""

from medqlora.callbacks.adapter_average import AverageAdapters
from medqlora.callbacks.adapter_checkpoint import AdapterCheckpoint
from medqlora.callbacks.answers import Answers
from medqlora.callbacks.attached import saver_of
from medqlora.callbacks.checkpoint_io import CheckpointFiles
from medqlora.callbacks.gpu_memory import GPUMemory
from medqlora.callbacks.progress import StepProgress
from medqlora.callbacks.run_recorder import RunRecorder
from medqlora.callbacks.signals import Signals
from medqlora.callbacks.test_report import EvaluationReport
from medqlora.callbacks.throughput import Throughput

__all__ = [
    "AdapterCheckpoint",
    "Answers",
    "AverageAdapters",
    "CheckpointFiles",
    "EvaluationReport",
    "GPUMemory",
    "RunRecorder",
    "Signals",
    "StepProgress",
    "Throughput",
    "saver_of",
]
