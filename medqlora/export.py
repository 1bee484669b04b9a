"""The adapter folder: PEFT's files, the tokenizer, the prompt, and a card that says how it was made."""

import json
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import Tensor

from medqlora import __version__
from medqlora.evaluation import TrainingTrace
from medqlora.models.adapters import RECORD_FILE, save_adapter
from medqlora.runs import now

#: ids and hashed runs of words of the training set, so that a test can tell what it has seen
TRACE_FILE = "training_trace.npz"
_PACKAGES = ("torch", "lightning", "transformers", "peft", "bitsandbytes", "datasets", "unsloth")


def versions() -> dict[str, str]:
    """The versions that decide a result, of the packages that are installed."""
    return {"medqlora": __version__} | {name: version(name) for name in _PACKAGES if find_spec(name)}


def export_adapter(
    module: Any,
    folder: Path,
    *,
    state: dict[str, Tensor],
    step: int,
    scores: dict[str, float],
    best: tuple[str | None, float | None],
) -> None:
    """Writes everything that loading and judging the adapter needs into `folder`, which exists.

    `PeftModel.from_pretrained(base, folder)` loads it; nothing of this project is needed for that.

    Args:
        module: the QLoRAModule, its model loaded and its data read.
        state: the adapter's weights by parameter name.
        step: the optimizer step that they are of.
        scores: the validation scores of these weights.
        best: the score that chose them: its name and value.
    """
    data, backend = module.data, module.backend
    tokenizer = backend.tokenizer()
    save_adapter(module.model, folder, state)
    tokenizer.save_pretrained(folder)
    TrainingTrace.of([data.records[example.id] for example in data.train]).save(folder / TRACE_FILE)
    trainable, total = module.parameter_counts
    record = {
        "base": backend.base,
        "base_identity": backend.identity(),
        "backend": type(backend).__name__,
        "lora": vars(module.lora),
        "prompt": data.prompt.describe(tokenizer),
        "data": {
            "name": data.source.name,
            **data.source.fingerprint(),
            "train_questions": len(data.train),
            "max_prompt_tokens": data.max_prompt_tokens,
        },
        "train_ids": [example.id for example in data.train],
        "training": {
            "step": step,
            "of_steps": module.total_steps(),
            "epochs": module.trainer.max_epochs,
            "batch_size": data.batch_size,
            "learning_rate": module.learning_rate,
            "optimizer": module.optimizer if isinstance(module.optimizer, str) else "class_path",
            "precision": str(module.trainer.precision),
            "seed": data.seed,
        },
        "scores": scores,
        "chosen_by": {"score": best[0], "value": best[1]},
        "parameters": {"trainable": trainable, "total": total},
        "versions": versions(),
        "created": now(),
    }
    (folder / RECORD_FILE).write_text(json.dumps(record, indent=2, default=str) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(_card(record), encoding="utf-8")


def _card(record: dict[str, Any]) -> str:
    """The model card, as the Hub reads it."""

    def table(values: dict[str, Any]) -> str:
        return "\n".join(f"| {name} | {value} |" for name, value in values.items())

    base = record["base"]
    front = ["---", "library_name: peft", "tags: [medical, question-answering, qlora, lora]"]
    if "/" in base and not base.startswith((".", "/", "~")):
        front.insert(1, f"base_model: {base}")
    template = record["prompt"]["template"]
    scores = {name: f"{value:.4g}" for name, value in record["scores"].items()}
    lora = record["lora"]
    return "\n".join(
        [
            *front,
            "---",
            "",
            f"# LoRA adapter for medical question answering, on {base}",
            "",
            "Not medical advice. A research artefact: it can be wrong, and confidently so.",
            "",
            "## Load it",
            "",
            "```python",
            "from peft import PeftModel",
            "from transformers import AutoModelForCausalLM",
            f'base = AutoModelForCausalLM.from_pretrained("{base}")',
            'model = PeftModel.from_pretrained(base, "path/of/this/folder")',
            "```",
            "",
            "## Prompt",
            "",
            f"`{record['prompt']['name']}`, SHA-256 {record['prompt']['sha256']}:",
            "",
            "```json",
            json.dumps(template, indent=2, ensure_ascii=False),
            "```",
            "",
            "## Validation scores of these weights",
            "",
            "| score | value |",
            "|---|---|",
            table(scores) or "| none | no validation set |",
            "",
            "A validation set is small: read them with their uncertainty, and judge by `medqlora test`.",
            "",
            "## Training",
            "",
            "| setting | value |",
            "|---|---|",
            table({f"data: {name}": value for name, value in record["data"].items()}),
            table(record["training"]),
            table({f"LoRA {name}": value for name, value in lora.items()}),
            table({f"{name} parameters": f"{value:,}" for name, value in record["parameters"].items()}),
            "",
            "## Versions",
            "",
            "| package | version |",
            "|---|---|",
            table(record["versions"]),
            "",
            f"Made by medqlora, {record['created']}.",
            "",
        ]
    )
