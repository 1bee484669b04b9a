"""The options under `--model.`: engine, training step and evaluation."""

import math
from dataclasses import dataclass
from typing import Literal

from medqlora.errors import InputError

Engine = Literal["auto", "fused", "native"]
Decoding = Literal["auto", "engine", "transformers"]
Checkpointing = Literal["auto", "offload", "full", "none"] | int
Weights = Literal["auto", "nf4", "cached"]
Place = Literal["device", "host"]
Graphs = Literal["auto", "off"]
_LEAST = {
    "learning_rate": 0.0,
    "weight_decay": 0.0,
    "max_grad_norm": 0.0,
    "neftune_alpha": 0.0,
    "max_new_tokens": 1,
    "max_bad_steps": 1,
}


@dataclass(frozen=True)
class EngineOptions:
    """How the model is run: memory and speed depend on it, the result does not.

    Args:
        engine: runs the training step and the scoring: "fused" is this project's own path for Llama-like 4-bit models
            on packed rows; "native" is the model's own forward. "auto" takes fused where it is faster: on a CPU in
            evaluations alone.
        decoding: generates the texts of evaluations: "engine" is this project's decode loop, for what the fused engine
            takes; "transformers" is the model's own `generate`. "auto" takes the engine where its self-test passes.
        checkpointing: activation checkpointing of the fused engine: "none"; "full" keeps each layer's input and
            recomputes the rest in the backward; "offload" keeps those inputs in host memory; a number of layers to
            recompute; "auto" recomputes as little as the GPU's free memory allows. The native engine follows
            `backend.gradient_checkpointing`.
        weights: of the fused engine: "nf4" dequantizes them in every product, "cached" once, for 16 more bits a
            weight; "auto" caches where the memory allows. The numbers are the same.
        graphs: "auto" runs training steps of the fused engine as CUDA graphs, which a GPU starts with a few launches
            instead of thousands: for micro-batches of at most 2,560 tokens, where the memory allows. Micro-batches are
            padded then, without a change of the loss. "off" runs without.
        embedding: "device", or "host": keep it in host memory and gather its rows from there.
        head: "device", or "host": keep the output head in host memory and stream it at every use. Both on the host
            save 2 GB with Llama-3-8B, and cost some time.
        preflight: before the first step, compare the loss of the largest pack with its examples' one by one, and on a
            GPU run the largest training and validation batch once.
    """

    engine: Engine = "auto"
    decoding: Decoding = "auto"
    checkpointing: Checkpointing = "auto"
    weights: Weights = "auto"
    graphs: Graphs = "auto"
    embedding: Place = "device"
    head: Place = "device"
    preflight: bool = True


@dataclass(frozen=True)
class StepOptions:
    """The optimizer step.

    Args:
        learning_rate: the highest rate, for every optimizer.
        weight_decay: AdamW's decoupled weight decay; of another optimizer by name, its own.
        warmup_ratio: share of all steps over which the rate rises; then it follows `lr_scheduler`.
        max_grad_norm: the gradient's norm is clipped to it; 0 clips nothing.
        lora_plus_ratio: learning rate of LoRA's B over that of A; 1 is LoRA. LoRA+ (Hayou et al., 2024,
            https://arxiv.org/abs/2402.12354) reports 1-2 points more accuracy at ratios of 4 to 16, with a lower
            `learning_rate`, on tasks that are hard for the base; about none on easy ones.
        neftune_alpha: noise on the embeddings in training, at most alpha / sqrt(tokens x dimensions) a value; 0 is
            none. NEFTune (Jain et al., 2023, https://arxiv.org/abs/2310.05914) reports preferred conversation at 5 to
            15, and no change on knowledge benchmarks.
        max_bad_steps: end the run after this many steps in a row whose loss or gradient is not finite; each such step
            is left out.
    """

    learning_rate: float = 2e-4
    weight_decay: float = 0.0
    warmup_ratio: float = 0.03
    max_grad_norm: float = 1.0
    lora_plus_ratio: float = 1.0
    neftune_alpha: float = 0.0
    max_bad_steps: int = 10


@dataclass(frozen=True)
class EvaluationOptions:
    """Validation, test and prediction.

    Args:
        generate: also generate answers in evaluation; false scores labels alone.
        max_new_tokens: length limit of a generated answer, in tokens.
        compare_base: `test` also evaluates the base model without the adapter.
        target_risk: an answer is given as "uncertain" below the confidence from which at most this share of the
            validation questions was answered wrongly.
    """

    generate: bool = True
    max_new_tokens: int = 48
    compare_base: bool = True
    target_risk: float = 0.1


@dataclass(frozen=True)
class ModelOptions(EvaluationOptions, StepOptions, EngineOptions):
    """All plain options of `QLoRAModule`.

    Args:
        adapter: evaluate this adapter folder (PEFT's format) instead; "none" for the bare base model; null takes the
            newest finished run's on the same base model.
    """

    adapter: str | None = None

    def check(self) -> None:
        """Raises InputError for values that no model and no run accepts."""
        check_checkpointing(self.checkpointing)
        check_weights(self.engine, self.weights)
        for option, low in _LEAST.items():
            value = getattr(self, option)
            if not (math.isfinite(value) and value >= low):
                raise InputError(f"--model.{option} is {value}: it has to be at least {low:g}")
        if not (math.isfinite(self.lora_plus_ratio) and self.lora_plus_ratio > 0):
            raise InputError(
                f"--model.lora_plus_ratio is {self.lora_plus_ratio}: it has to be above 0 (1 is LoRA, 4 to 16 LoRA+)"
            )
        if not 0 <= self.target_risk <= 1:
            raise InputError(f"--model.target_risk is {self.target_risk}: it is a share, 0 to 1")
        if not 0 <= self.warmup_ratio < 1:
            raise InputError(f"--model.warmup_ratio is {self.warmup_ratio}: it has to be in [0, 1)")


def check_checkpointing(value: Checkpointing) -> None:
    """Raises InputError for a number of layers that can't be."""
    if isinstance(value, int) and value < 0:
        raise InputError(
            f"--model.checkpointing is {value}: it is a number of layers, at least 0, or auto, full, offload or none"
        )


def check_weights(engine: str, weights: str) -> None:
    """Raises InputError for weights that `engine` doesn't keep."""
    if engine == "native" and weights == "cached":
        raise InputError("--model.weights cached: the native engine keeps none dequantized: use nf4 or auto")
