"""Options as data: frozen dataclasses that need neither torch nor Lightning.

Each option's name, type, default and help stand here alone. The classes that Lightning runs take them as `**options`,
so that LightningCLI's parser, the help of each command and the documentation's reference all come from here.
"""

from medqlora.config.backends import (
    TinyLlamaOptions,
    TinyVisionOptions,
    TransformersOptions,
    UnslothOptions,
    UnslothVisionOptions,
    VisionLanguageOptions,
)
from medqlora.config.callbacks import (
    AnswersOptions,
    CheckpointOptions,
    GPUMemoryOptions,
    ProgressOptions,
    ReportOptions,
)
from medqlora.config.data import DataOptions
from medqlora.config.lora import LoRAOptions
from medqlora.config.model import EngineOptions, EvaluationOptions, ModelOptions, StepOptions
from medqlora.config.retrieval import RetrievalOptions
from medqlora.config.serving import ServeOptions

__all__ = [
    "AnswersOptions",
    "CheckpointOptions",
    "DataOptions",
    "EngineOptions",
    "EvaluationOptions",
    "GPUMemoryOptions",
    "LoRAOptions",
    "ModelOptions",
    "ProgressOptions",
    "ReportOptions",
    "RetrievalOptions",
    "ServeOptions",
    "StepOptions",
    "TinyLlamaOptions",
    "TinyVisionOptions",
    "TransformersOptions",
    "UnslothOptions",
    "UnslothVisionOptions",
    "VisionLanguageOptions",
]
