"""Other projects' trainers on the same shape, lengths and tokens, through their public interfaces.

TRL's SFTTrainer (https://huggingface.co/docs/trl/sft_trainer) with PEFT, and with Unsloth's models and
patches (https://docs.unsloth.ai). Each is given token ids with a completion mask. Where a text is cut before
its answer nothing of it carries loss, and TRL 1.15 leaves it out: the recipe runs on those that are left.
"""

import importlib.util
import tempfile
from pathlib import Path
from typing import Any

from medqlora.compat.transformers import attention_implementation
from medqlora.compat.unsloth import attention_package
from medqlora.errors import InputError
from medqlora.profiling.case import PEERS, Case, Trainer

#: the recipe of most notebooks: examples a micro-batch, micro-batches a step, where texts are cut
RECIPE = (2, 4, 256)


def check_peers(names: list[Trainer]) -> None:
    """Raises InputError when a peer's package is missing, or there is no GPU: before anything is run."""
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


def peer_cases(name: Trainer, budgets: list[int], **common: Any) -> list[Case]:
    """A trainer's settings: the usual recipe, and packed at each budget, each with checkpointing on and off."""
    rows, accumulate, cut = RECIPE
    kept = ("unsloth" if name == "trl-unsloth" else "full", "none")
    cases = [
        Case(trainer=name, checkpointing=checkpointing, micro_batch_tokens=cut, batch_size=rows,
             accumulate=accumulate, packing=False, **common)
        for checkpointing in kept
    ]  # fmt: skip
    cases += [
        Case(trainer=name, checkpointing=checkpointing, micro_batch_tokens=budget, batch_size=1, **common)
        for budget in budgets
        for checkpointing in kept
    ]
    return cases


def measure_peer(case: Case) -> dict[str, Any]:
    """Speed and memory of the case's trainer, with the measure that `measure` has."""
    unsloth = case.trainer == "trl-unsloth"
    if unsloth:
        from medqlora.models.unsloth import import_unsloth

        import_unsloth()  # before transformers, PEFT and TRL, which it patches
    import torch

    from medqlora.profiling import clock
    from medqlora.profiling.measure import DTYPES

    device, dtype = torch.device(case.device), DTYPES[case.precision]
    ceiling = clock.matrix_product_flops(device, dtype)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    with tempfile.TemporaryDirectory(prefix="medqlora-bench-") as folder:
        trainer = _trainer(case, Path(folder), device, dtype)
        loaded = next(iter(clock.peaks(device).values()))
        counted = _Counted(trainer.model, case, device)
        trainer.add_callback(counted.callback())
        trainer.train()
    step_s, tokens = counted.figures()
    return {
        **clock.summary(step_s, tokens),
        **counted.peaks,
        "loaded_gib": loaded,
        "flop_utilisation": None,  # it is counted over examples' lengths, which the trainer doesn't tell
        "matrix_product_tflops": round(ceiling / 1e12, 3),
        "attention": _attention(trainer.model, unsloth),
        "hardware": clock.hardware(device),
    }


def _trainer(case: Case, folder: Path, device: Any, dtype: Any) -> Any:
    """An SFTTrainer over enough examples, as its documentation sets one up for QLoRA."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    from medqlora.models.lora import SEVEN_PROJECTIONS, LoRA, lora_targets, peft_config
    from medqlora.profiling.lengths import random_examples
    from medqlora.profiling.random_model import build_base, build_tokenizer

    unsloth, checkpointed = case.trainer == "trl-unsloth", case.checkpointing != "none"
    lora = LoRA()
    adapters: dict[str, Any] = {}
    if unsloth:
        from unsloth import FastLanguageModel

        checkpointing: Any = "unsloth" if checkpointed else False
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
    else:
        model = build_base(case.shape, device=device, dtype=dtype, seed=case.seed)
        tokenizer = build_tokenizer()
        adapters["peft_config"] = peft_config(lora, lora_targets(lora, model).modules)
    config = model.config.get_text_config()
    rows = case.batch_size or 1
    steps = case.warm_up + case.steps
    examples = random_examples(vocab_size=config.vocab_size, longest=config.max_position_embeddings)
    # a step's worth of texts for every step, so that no step meets the end of the data
    needed = steps * case.accumulate * (rows if not case.packing else case.micro_batch_tokens // 200 + 1)
    examples = examples * (needed // len(examples) + 2)
    data = Dataset.from_dict(
        {
            "input_ids": [[*example.prompt, *example.completion] for example in examples],
            "completion_mask": [
                [0] * len(example.prompt) + [1] * len(example.completion) for example in examples
            ],
        }
    )
    arguments = SFTConfig(
        output_dir=str(folder), per_device_train_batch_size=rows, gradient_accumulation_steps=case.accumulate,
        max_steps=steps, max_length=case.micro_batch_tokens, packing=case.packing,
        completion_only_loss=True, optim="adamw_8bit", learning_rate=1e-5, logging_steps=10_000,
        save_strategy="no", report_to="none", seed=case.seed,
        bf16=case.precision == "bf16-mixed", fp16=case.precision == "16-mixed",
        gradient_checkpointing=checkpointed,
        # Unsloth brings its own checkpointing, which takes no such choice
        gradient_checkpointing_kwargs=None if unsloth else {"use_reentrant": False},
        use_cpu=device.type == "cpu", disable_tqdm=True,
    )  # fmt: skip
    return SFTTrainer(model=model, args=arguments, train_dataset=data, processing_class=tokenizer, **adapters)


class _Counted:
    """The time of each step and its tokens that are not padding, as they reach the model."""

    def __init__(self, model: Any, case: Case, device: Any) -> None:
        from medqlora.profiling.clock import Clock

        self._clock, self._case, self._device = Clock(device), case, device
        self._tokens: list[list[Any]] = [[]]
        self.peaks: dict[str, float] = {}
        model.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, module: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        mask = named.get("attention_mask")
        # a sum stays on the device: the host must not wait for it here
        two = mask is not None and mask.dim() == 2
        self._tokens[-1].append(mask.sum() if two else named["input_ids"].numel())  # type: ignore[union-attr]

    def callback(self) -> Any:
        from transformers import TrainerCallback

        from medqlora.profiling import clock

        counted = self

        class AfterEachStep(TrainerCallback):
            def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                done = state.global_step - counted._case.warm_up
                if done == 0:
                    clock.reset_peak(counted._device)
                if done >= 0:
                    counted._clock.mark()
                    counted._tokens.append([])
                else:
                    counted._tokens = [[]]
                if done == counted._case.steps:
                    counted.peaks = clock.peaks(counted._device)

        return AfterEachStep()

    def figures(self) -> tuple[list[float], list[int]]:
        """Seconds and tokens of each timed step."""
        step_s = self._clock.between_s()
        # the first list is of the last step of the warm-up
        tokens = [int(sum(int(count) for count in step)) for step in self._tokens[1 : len(step_s) + 1]]
        return step_s, tokens


def _attention(model: Any, unsloth: bool) -> str:
    """Which attention ran, as far as the libraries tell it."""
    if not unsloth:
        return f"transformers {attention_implementation(model.config)}"
    package = attention_package()
    return f"unsloth: {package or f'torch sdpa ({attention_implementation(model.config)})'}"
