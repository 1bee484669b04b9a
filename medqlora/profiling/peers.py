"""Other projects' trainers on the same shape, lengths and tokens, through their public interfaces.

TRL's SFTTrainer (https://huggingface.co/docs/trl/sft_trainer) with PEFT, and with Unsloth's models and
patches (https://docs.unsloth.ai). Both receive token ids with a completion mask. A text truncated before its
answer has no loss, and TRL 1.15 drops it: the recipe runs on the remaining texts.
"""

import importlib.util
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from medqlora.compat.transformers import attention_implementation
from medqlora.compat.unsloth import attention_package
from medqlora.errors import InputError
from medqlora.profiling.case import PEERS, Case, Trainer
from medqlora.profiling.figures import Figures, Peaks, summary, used_gib

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from torch import Tensor, nn
    from transformers import (
        PretrainedConfig,
        PreTrainedTokenizerBase,
        TrainerCallback,
        TrainerControl,
        TrainerState,
        TrainingArguments,
    )

#: the recipe of most notebooks: examples per micro-batch, micro-batches per step, maximum length
RECIPE = (2, 4, 256)


class PeerModel(Protocol):
    """The model inside a trainer: transformers' or PEFT's."""

    config: "PretrainedConfig"

    def register_forward_pre_hook(self, hook: "_Hook", *, with_kwargs: bool) -> object: ...


class _Hook(Protocol):
    """A forward hook of torch with keyword arguments."""

    def __call__(
        self, module: "nn.Module", arguments: tuple[object, ...], named: "dict[str, Tensor | None]"
    ) -> None: ...


class PeerTrainer(Protocol):
    """The part of TRL's `SFTTrainer` that is used."""

    model: PeerModel

    def add_callback(self, callback: "TrainerCallback") -> None: ...

    def train(self) -> object: ...


class _Loaded(NamedTuple):
    """What a trainer receives; without `adapters` the model has them already."""

    model: PeerModel
    tokenizer: "PreTrainedTokenizerBase"
    adapters: "LoraConfig | None"


def check_peers(names: Sequence[Trainer]) -> None:
    """Raises InputError if a peer's package is missing, or there is no GPU."""
    for name in names:
        for package in PEERS[name]:
            if importlib.util.find_spec(package) is None:
                raise InputError(
                    f"--peer {name}: the package '{package}' is not installed: `pip install {package}`, or leave "
                    "the option out"
                )
    import torch

    if not torch.cuda.is_available():
        raise InputError(
            f"--peer {' '.join(names)}: torch finds no CUDA GPU here, and these trainers are measured on one: "
            "leave the option out"
        )


def peer_cases(name: Trainer, budgets: Sequence[int], common: Case) -> list[Case]:
    """A trainer's cases: the usual recipe, and packed at each budget, each with checkpointing on and off.

    Args:
        name: of the trainer.
        budgets: tokens of a packed micro-batch.
        common: the other settings.
    """
    rows, accumulate, length = RECIPE
    recipe = replace(
        common,
        trainer=name,
        micro_batch_tokens=length,
        batch_size=rows,
        accumulate=accumulate,
        packing=False,
    )
    packed = [replace(common, trainer=name, micro_batch_tokens=budget, batch_size=1) for budget in budgets]
    return [
        replace(case, checkpointing=checkpointing)
        for case in (recipe, *packed)
        for checkpointing in ("unsloth" if name == "trl-unsloth" else "full", "none")
    ]


def measure_peer(case: Case) -> Figures:
    """Speed and memory of the case's trainer, measured as `measure` does."""
    unsloth = case.trainer == "trl-unsloth"
    if unsloth:
        from medqlora.models.unsloth import import_unsloth

        import_unsloth()  # before transformers, PEFT and TRL, which it patches
    import torch

    from medqlora.models.precision import DTYPES
    from medqlora.profiling import clock

    device, dtype = torch.device(case.device), DTYPES[case.precision]
    ceiling = clock.matrix_product_flops(device, dtype)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    with tempfile.TemporaryDirectory(prefix="medqlora-bench-") as folder:
        trainer = _trainer(case, Path(folder), device, dtype)
        loaded = used_gib(clock.peaks(device))
        steps = _Steps(trainer.model, case, device)
        trainer.add_callback(steps.callback())
        trainer.train()
    step_s, tokens = steps.measured()
    return {
        **summary(step_s, tokens),
        **steps.peaks,
        "loaded_gib": loaded,
        "flop_utilisation": None,  # it needs examples' lengths, which the trainer doesn't report
        "matrix_product_tflops": round(ceiling / 1e12, 3),
        "attention": _attention(trainer.model, unsloth),
        "hardware": clock.hardware(device),
    }


def _trainer(case: Case, folder: Path, device: "torch.device", dtype: "torch.dtype") -> PeerTrainer:
    """An SFTTrainer with enough examples, set up for QLoRA as in its documentation."""
    from trl import SFTConfig, SFTTrainer

    unsloth, checkpointed = case.trainer == "trl-unsloth", case.checkpointing != "none"
    loaded = _load_unsloth(case, device, dtype) if unsloth else _load_peft(case, device, dtype)
    rows = case.batch_size or 1
    steps = case.warm_up + case.steps
    config = loaded.model.config.get_text_config()
    # each step has new texts, so that no step reaches the end of the data
    needed = steps * case.accumulate * (rows if not case.packing else case.micro_batch_tokens // 200 + 1)
    data = _dataset(needed, config.vocab_size, config.max_position_embeddings)
    arguments = SFTConfig(
        output_dir=str(folder), per_device_train_batch_size=rows, gradient_accumulation_steps=case.accumulate,
        max_steps=steps, max_length=case.micro_batch_tokens, packing=case.packing,
        completion_only_loss=True, optim="adamw_8bit", learning_rate=1e-5, logging_steps=10_000,
        save_strategy="no", report_to="none", seed=case.seed,
        bf16=case.precision == "bf16-mixed", fp16=case.precision == "16-mixed",
        gradient_checkpointing=checkpointed,
        # Unsloth has its own checkpointing, without this option
        gradient_checkpointing_kwargs=None if unsloth else {"use_reentrant": False},
        use_cpu=device.type == "cpu", disable_tqdm=True,
    )  # fmt: skip
    return SFTTrainer(
        model=loaded.model, args=arguments, train_dataset=data, processing_class=loaded.tokenizer,
        peft_config=loaded.adapters,
    )  # fmt: skip


def _load_unsloth(case: Case, device: "torch.device", dtype: "torch.dtype") -> _Loaded:
    """Unsloth's model from the case's checkpoint, with adapters."""
    from unsloth import FastLanguageModel

    from medqlora.models.lora import SEVEN_PROJECTIONS, LoRA

    lora = LoRA()
    checkpointing = "unsloth" if case.checkpointing != "none" else False
    longest = max(case.micro_batch_tokens, 1024)
    model, tokenizer = FastLanguageModel.from_pretrained(
        model_name=case.folder, max_seq_length=longest, dtype=dtype, load_in_4bit=True,
        device_map={"": device.index or 0}, use_gradient_checkpointing=checkpointing,
        use_exact_model_name=True,
    )  # fmt: skip
    model = FastLanguageModel.get_peft_model(
        model, r=lora.r, lora_alpha=lora.alpha, lora_dropout=0, target_modules=list(SEVEN_PROJECTIONS),
        bias="none", use_gradient_checkpointing=checkpointing, random_state=case.seed,
        max_seq_length=longest,
    )  # fmt: skip
    return _Loaded(model, tokenizer, None)


def _load_peft(case: Case, device: "torch.device", dtype: "torch.dtype") -> _Loaded:
    """transformers' model; TRL adds the adapters."""
    from medqlora.models.lora import LoRA, lora_targets, peft_config
    from medqlora.profiling.random_model import build_base, build_tokenizer

    lora = LoRA()
    model = build_base(case.shape, device=device, dtype=dtype, seed=case.seed)
    return _Loaded(model, build_tokenizer(), peft_config(lora, lora_targets(lora, model).modules))


def _dataset(count: int, vocab_size: int, longest: int) -> "Dataset":
    """At least `count` texts as token ids with a completion mask."""
    from datasets import Dataset

    from medqlora.profiling.lengths import random_examples

    examples = random_examples(vocab_size=vocab_size, longest=longest)
    examples = examples * (count // len(examples) + 2)
    return Dataset.from_dict(
        {
            "input_ids": [[*example.prompt, *example.completion] for example in examples],
            "completion_mask": [
                [0] * len(example.prompt) + [1] * len(example.completion) for example in examples
            ],
        }
    )


class _Steps:
    """The time of each step, and its tokens without padding, as they reach the model."""

    def __init__(self, model: PeerModel, case: Case, device: "torch.device") -> None:
        from medqlora.profiling.clock import Clock

        self._clock, self._case, self._device = Clock(device), case, device
        self._tokens: list[list[Tensor | int]] = [[]]
        self.peaks: Peaks = {}
        model.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(
        self, module: "nn.Module", arguments: tuple[object, ...], named: "dict[str, Tensor | None]"
    ) -> None:
        mask, ids = named.get("attention_mask"), named["input_ids"]
        # the sum stays on the device, without a sync
        if mask is not None and mask.dim() == 2:
            self._tokens[-1].append(mask.sum())
        elif ids is not None:
            self._tokens[-1].append(ids.numel())

    def _end(self, done: int) -> None:
        """After a step; `done` is the number of timed steps, 0 or less in the warm-up."""
        from medqlora.profiling import clock

        if done == 0:
            clock.reset_peak(self._device)
        if done >= 0:
            self._clock.mark()
            self._tokens.append([])
        else:
            self._tokens = [[]]
        if done == self._case.steps:
            self.peaks = clock.peaks(self._device)

    def callback(self) -> "TrainerCallback":
        from transformers import TrainerCallback

        steps = self

        class AfterEachStep(TrainerCallback):
            def on_step_end(
                self,
                args: "TrainingArguments",
                state: "TrainerState",
                control: "TrainerControl",
                **kwargs: object,
            ) -> None:
                steps._end(state.global_step - steps._case.warm_up)

        return AfterEachStep()

    def measured(self) -> tuple[list[float], list[int]]:
        """Seconds and tokens of each timed step."""
        step_s = self._clock.between_s()
        # the first list belongs to the last step of the warm-up
        tokens = [int(sum(int(count) for count in step)) for step in self._tokens[1 : len(step_s) + 1]]
        return step_s, tokens


def _attention(model: PeerModel, unsloth: bool) -> str:
    """The attention implementation that ran, as far as the libraries report it."""
    if not unsloth:
        return f"transformers {attention_implementation(model.config)}"
    package = attention_package()
    return f"unsloth: {package or f'torch sdpa ({attention_implementation(model.config)})'}"
