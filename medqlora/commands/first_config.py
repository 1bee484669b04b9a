"""The configuration that `medqlora init` writes: one commented YAML, from the data and the machine at hand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TypeAlias

import yaml

from medqlora.commands.machine import GIB, Machine
from medqlora.config.files import parse_text
from medqlora.config.words import CommandLine
from medqlora.data.sources.recognised import Recognised
from medqlora.errors import InputError

Tree: TypeAlias = dict[str, object]
DEMO_BASE = "demo"
#: limits of a prompt that are offered, in tokens
LIMITS = (256, 512, 1024, 2048, 4096)
_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@dataclass(frozen=True)
class SuggestedBase:
    """A base model of the Hub that `init` suggests; `least_gib` is the smallest GPU that it trains on."""

    name: str
    least_gib: float
    download_gb: float


#: the largest first; the plan of the written configuration has the last word
BASES = (
    SuggestedBase("unsloth/llama-3-8b-bnb-4bit", 7.0, 5.7),
    SuggestedBase("unsloth/Llama-3.2-3B-bnb-4bit", 4.5, 2.3),
    SuggestedBase("unsloth/Llama-3.2-1B-bnb-4bit", 2.5, 1.1),
)


def suggested_bases(machine: Machine) -> list[tuple[str, str]]:
    """(base, why) in the order to try them; the demo's base is last."""
    listed = [
        (
            base.name,
            f"the largest of the suggested bases for {machine.gpu_memory / GIB:.1f} GiB of GPU memory; a download of "
            f"{base.download_gb} GB",
        )
        for base in BASES
        if machine.gpu is not None and machine.gpu_memory / GIB >= base.least_gib
    ]
    without = "there is no GPU" if machine.gpu is None else "the GPU's memory is too small for the others"
    demo = f"{without}: the demo's base trains on a CPU and shows the whole path, but knows no medicine"
    return [*listed, (DEMO_BASE, demo)]


@dataclass(frozen=True)
class Draft:
    """A configuration in the making.

    Args:
        source: where the records come from.
        base: Hub name or folder of the base model, or "demo".
        machine: to train on.
        max_prompt_tokens: limit of a prompt.
        epochs: of the fit; None for the base's default.
        train_samples: train on this many questions; None for all.
        completion_tokens: of the longest answer.
        more: further options of `fit` as the user typed them.
    """

    source: Recognised
    base: str
    machine: Machine
    max_prompt_tokens: int = LIMITS[-1]
    epochs: int | None = None
    train_samples: int | None = None
    completion_tokens: int = 48
    more: Sequence[str] = field(default_factory=tuple)

    @property
    def on_gpu(self) -> bool:
        """Whether the fit is for a GPU: the demo's base trains on a CPU anywhere."""
        return self.machine.gpu is not None and self.base != DEMO_BASE

    @property
    def run_epochs(self) -> int:
        return self.epochs or (2 if self.base == DEMO_BASE else 3)

    def tree(self) -> Tree:
        """The options as `fit` reads them, those of the user's last."""
        demo = self.base == DEMO_BASE
        tree: Tree = {
            "seed_everything": 0,
            "model": {
                "backend": self._backend(),
                "lora": {"r": 16, "alpha": 32, "dropout": 0.0, "target_modules": _TARGETS},
                **self._memory(),
                "optimizer": "adamw_8bit",
                "learning_rate": 3.0e-3 if demo else 2.0e-4,
                "warmup_ratio": 0.1 if demo else 0.03,
                "max_grad_norm": 1.0,
                "max_new_tokens": max(16, min(256, self.completion_tokens)),
            },
            "data": {
                "source": {
                    "class_path": self.source.class_path,
                    **({"init_args": dict(self.source.init_args)} if self.source.init_args else {}),
                },
                "prompt": "medical",
                "max_prompt_tokens": self.max_prompt_tokens,
                "batch_size": 8,
                "micro_batch_tokens": "auto" if self._automatic else 2048,
                "eval_batch_size": 32 if demo else "auto",
                **({"train_samples": self.train_samples} if self.train_samples else {}),
            },
            "trainer": {
                "accelerator": "gpu" if self.on_gpu else "cpu",
                "devices": 1,
                "precision": self._precision,
                "max_epochs": self.run_epochs,
            },
        }
        _merge_options(tree, self.more)
        return tree

    def text(self, head: Sequence[str] = ()) -> str:
        """The file, with `head` as comments before the options."""
        comments = {
            **_COMMENTS,
            "model.backend.init_args.base": "Hub name or folder; its licence is yours to accept",
            "trainer.precision": self._precision_comment,
        }
        lines = [f"# {line}".rstrip() for line in head]
        return "\n".join([*lines, *_yaml_lines(self.tree(), "", 0, comments), ""])

    # ---- the parts ---------------------------------------------------------------------------------------

    def _backend(self) -> Tree:
        if self.base == DEMO_BASE:
            return {"class_path": "medqlora.models.TinyLlama", "init_args": {"quantization": "nf4"}}
        longest = self.max_prompt_tokens + self.completion_tokens + 64
        if self.on_gpu and self.machine.here and find_spec("unsloth") is not None:
            init: Tree = {
                "base": self.base,
                "quantization": "nf4",
                "gradient_checkpointing": "unsloth",
                "max_seq_length": max(2048, -(-longest // 256) * 256),
            }
            return {"class_path": "medqlora.models.Unsloth", "init_args": init}
        init = {"base": self.base, "quantization": "nf4", "gradient_checkpointing": True}
        return {"class_path": "medqlora.models.Transformers", "init_args": init}

    @property
    def _automatic(self) -> bool:
        """Whether the fused engine runs, whose settings the plan chooses by the memory."""
        return self.on_gpu and self.machine.ampere is True

    def _memory(self) -> Tree:
        if self._automatic:
            return {"checkpointing": "auto", "weights": "auto"}
        return {"checkpointing": "offload", "weights": "nf4"} if self.on_gpu else {}

    @property
    def _precision(self) -> str | int:
        if not self.on_gpu:
            return 32
        return "bf16-mixed" if self.machine.ampere else "16-mixed"

    @property
    def _precision_comment(self) -> str:
        if not self.on_gpu:
            return "a CPU computes in float32"
        if self.machine.ampere:
            return "bfloat16: this GPU has it"
        return "runs on every CUDA GPU; from Ampere on (A100, RTX 30) bf16-mixed is better"


#: option → the comment behind it
_COMMENTS = {
    "model.lora.r": "rank: more learns more, and forgets more",
    "model.checkpointing": "activation memory of the fused engine; auto: the plan decides",
    "model.weights": "auto keeps weights dequantized where the memory allows",
    "model.learning_rate": "the first thing to change, from 5e-5 to 5e-3",
    "model.warmup_ratio": "then a cosine down to 0",
    "model.max_new_tokens": "length limit of a generated answer in evaluation",
    "data.prompt": "medical, chat (instruction-tuned base models) or lm_eval",
    "data.max_prompt_tokens": "longer prompts have their context shortened, never question or answer",
    "data.batch_size": "examples an optimizer step; decides the result",
    "data.micro_batch_tokens": "memory and speed only; never the result",
    "data.eval_batch_size": "answers generated at once, at most",
    "data.train_samples": "drawn by the seed; remove the line for all",
    "trainer.max_epochs": "the best checkpoint of all is kept, by the validation questions",
}


def _merge_options(tree: Tree, words: Sequence[str]) -> None:
    """Puts options of `fit` into the tree; options of a class go into its `init_args`.

    Raises:
        InputError: an option has no value, or names a configuration.
    """
    for option in CommandLine.parse(words).options:
        if not option.name or option.value is None or option.strays or option.append:
            raise InputError(f"{' '.join(option.typed)}: write options of fit as --OPTION VALUE")
        parts = option.name.split(".")
        for key in ("model.backend.", "data.source."):
            if option.name.startswith(key) and parts[2] not in ("class_path", "init_args"):
                parts.insert(2, "init_args")
        if option.name in ("model.backend", "data.source"):
            parts.append("class_path")
        place: Tree = tree
        for part in parts[:-1]:
            inner = place.setdefault(part, {})
            if not isinstance(inner, dict):
                raise InputError(
                    f"--{option.name}: it belongs to {part}, which is a single value: leave it out"
                )
            place = inner
        place[parts[-1]] = parse_text(option.value).value


def _is_name(key: object) -> bool:
    """Whether a key is the name of an option, not a value of the user's (labels: {0: no, 1: yes})."""
    return isinstance(key, str) and key.isidentifier() and isinstance(yaml.safe_load(key), str)


def _yaml_lines(
    tree: Mapping[str, object], prefix: str, depth: int, comments: Mapping[str, str]
) -> list[str]:
    lines = []
    for name, value in tree.items():
        key, indent = f"{prefix}{name}", "  " * depth
        if isinstance(value, dict) and value and all(map(_is_name, value)):
            lines += [f"{indent}{name}:", *_yaml_lines(value, f"{key}.", depth + 1, comments)]
            continue
        shown = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
        comment = f"  # {comments[key]}" if key in comments else ""
        lines.append(f"{indent}{name}: {shown.removesuffix('...' + chr(10)).strip()}{comment}")
    return lines
