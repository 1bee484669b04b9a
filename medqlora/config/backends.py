"""The options of the model backends, under `--model.backend.`."""

from dataclasses import dataclass
from typing import Literal

#: the classes of `medqlora.models` that load a base
BACKEND_NAMES = ("Unsloth", "Transformers", "TinyLlama", "VisionLanguage", "TinyVision", "UnslothVision")
#: of those, the ones that read images
VISION_BACKENDS = ("VisionLanguage", "TinyVision", "UnslothVision")
#: those of Unsloth -> the backend that loads the same base and adapters without it
WITHOUT_UNSLOTH = {"Unsloth": "Transformers", "UnslothVision": "VisionLanguage"}
#: made by bitsandbytes while a base is loaded, or before
Quantization = Literal["nf4", "fp4", "int8", "none"]
#: those, and the 4-bit integers of a base's own files
BaseQuantization = Literal["nf4", "fp4", "int8", "none", "gptq", "awq"]


@dataclass(frozen=True)
class TransformersOptions:
    """A causal language model of transformers, its weights held in 4 bits.

    Args:
        base: the base model's Hub name or folder.
        quantization: nf4 (QLoRA's), fp4, int8, or none; gptq or awq for a base whose files are quantized so, in 4 bits.
        double_quantization: also quantize the scales of nf4 and fp4: 0.37 bit a parameter less.
        compute_dtype: data type of the 4-bit layers' products; "auto" takes the precision of the run.
        gradient_checkpointing: keep only each layer's input and recompute the rest in the backward: about a third more
            time for a fraction of the activations' memory.
        attention: transformers' attention implementation; "auto" takes the fastest that the model has.
        revision: a branch, tag or commit on the Hub.
        allow_unquantized: train although less than half of the decoder layers' weights can be quantized.
    """

    base: str
    quantization: BaseQuantization = "nf4"
    double_quantization: bool = True
    compute_dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    gradient_checkpointing: bool = True
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2"] = "auto"
    revision: str | None = None
    allow_unquantized: bool = False


@dataclass(frozen=True)
class VisionLanguageOptions(TransformersOptions):
    """A vision-language model of transformers; its language model's layers are held in 4 bits by bitsandbytes.

    Vision tower and projector stay in 16 bits. Rows are padded, and go through the model's own forward.

    Args:
        base: the base model's Hub name or folder; a LLaVA, Qwen2-VL, Qwen2.5-VL, Qwen3-VL or Gemma 3 (MedGemma).
        quantization: nf4 (QLoRA's), fp4, int8, or none.
        double_quantization: also quantize the scales of nf4 and fp4: 0.37 bit a parameter less.
        compute_dtype: data type of the 4-bit layers' products; "auto" takes the precision of the run.
        gradient_checkpointing: keep only each layer's input and recompute the rest in the backward: about a third more
            time for a fraction of the activations' memory.
        attention: transformers' attention implementation; "auto" takes the fastest that the model has.
        revision: a branch, tag or commit on the Hub.
        allow_unquantized: train although less than half of the decoder layers' weights can be quantized.
        adapt_projector: also put adapters on the projector between vision tower and language model.
        adapt_vision: also put adapters on the vision tower.
    """

    adapt_projector: bool = False
    adapt_vision: bool = False


@dataclass(frozen=True)
class UnslothOptions:
    """A model of Unsloth's `FastLanguageModel`, in NF4.

    Args:
        base: the base model's Hub name or folder.
        quantization: nf4, or none (16-bit base).
        gradient_checkpointing: "unsloth" also moves the kept activations to the host; true keeps them on the GPU;
            false keeps everything.
        max_seq_length: the longest example, prompt and answer, that positions are prepared for, in tokens.
        revision: a branch, tag or commit on the Hub.
    """

    base: str
    quantization: Literal["nf4", "none"] = "nf4"
    gradient_checkpointing: Literal["unsloth"] | bool = "unsloth"
    max_seq_length: int = 2048
    revision: str | None = None


@dataclass(frozen=True)
class UnslothVisionOptions(UnslothOptions):
    """A vision-language model of Unsloth's `FastVisionModel`; its language model's layers are held in NF4.

    Vision tower and projector stay in 16 bits. Rows are padded, and go through the model's own forward.

    Args:
        base: the base model's Hub name or folder; a LLaVA, Qwen2-VL, Qwen2.5-VL, Qwen3-VL or Gemma 3 (MedGemma).
        quantization: nf4, or none (16-bit base).
        gradient_checkpointing: "unsloth" also moves the kept activations to the host; true keeps them on the GPU;
            false keeps everything.
        max_seq_length: the longest example, prompt with image tokens and answer, in tokens.
        revision: a branch, tag or commit on the Hub.
        adapt_projector: also put adapters on the projector between vision tower and language model.
        adapt_vision: also put adapters on the vision tower.
    """

    adapt_projector: bool = False
    adapt_vision: bool = False


@dataclass(frozen=True)
class TinyLlamaOptions:
    """A Llama of a few million parameters, made on this machine when first used; no download.

    It is pretrained for under a minute on unlabelled texts of invented trials, so it can read and write them but knows
    no answer. It is kept in the cache folder.

    Args:
        quantization: nf4 (QLoRA's), fp4, int8, or none.
        double_quantization: also quantize the scales of nf4 and fp4.
        gradient_checkpointing: keep only each layer's input and recompute the rest in the backward.
        seed: of the pretraining.
    """

    quantization: Quantization = "nf4"
    double_quantization: bool = True
    gradient_checkpointing: bool = False
    seed: int = 0


@dataclass(frozen=True)
class TinyVisionOptions:
    """A vision-language model of a few million parameters, made on this machine when first used; no download.

    It has seen drawn radiographs and their questions with answers drawn at random, so it can read both but knows no
    answer. It is kept in the cache folder.

    Args:
        quantization: nf4 (QLoRA's), fp4, int8, or none.
        double_quantization: also quantize the scales of nf4 and fp4.
        gradient_checkpointing: keep only each layer's input and recompute the rest in the backward.
        adapt_projector: also put adapters on the projector between vision tower and language model.
        adapt_vision: also put adapters on the vision tower.
        seed: of the pretraining.
    """

    quantization: Quantization = "nf4"
    double_quantization: bool = True
    gradient_checkpointing: bool = False
    adapt_projector: bool = False
    adapt_vision: bool = False
    seed: int = 0
