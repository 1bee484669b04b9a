"""The adapter folder: PEFT's files, the tokenizer, the prompt, and a card that says how it was made."""

import json
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import Tensor

from medqlora import __version__
from medqlora.artifacts.evaluated_weights import TRACE_FILE
from medqlora.data.test_sets import OPTION, summary, told
from medqlora.evaluation import TrainingTrace
from medqlora.models.adapters import RECORD_FILE, TEST_QUESTIONS, save_adapter
from medqlora.records import Record
from medqlora.utils.files import now
from medqlora.utils.run_length import total_steps

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
    calibration: dict[str, Any] | None,
    best: tuple[str | None, float | None],
) -> None:
    """Writes everything that loading and judging the adapter needs into `folder`, which exists.

    `PeftModel.from_pretrained(base, folder)` loads it; nothing of this project is needed for that.

    Args:
        module: the QLoRAModule, its model loaded and its data read.
        state: the adapter's weights by parameter name.
        step: the optimizer step that they are of.
        scores: the validation scores of these weights.
        calibration: the temperature and the threshold of their answers, see `medqlora.inference`; None where
            nothing was validated.
        best: the score that chose them: its name and value.
    """
    data, backend = module.data, module.backend
    tokenizer = backend.tokenizer()
    save_adapter(module.model, folder, state)
    tokenizer.save_pretrained(folder)
    train = _trained_on(module, data)
    TrainingTrace.of(train).save(folder / TRACE_FILE)
    trainable, total = module.parameter_counts
    dev = [data.records[example.id] for example in data.dev]
    record = {
        "base": backend.base,
        "base_identity": backend.identity(),
        "backend": type(backend).__name__,
        "backend_options": backend.options(),
        "lora": vars(module.lora),
        "prompt": data.prompt.describe(tokenizer),
        "data": {
            "name": data.source.name,
            **data.source.fingerprint(),
            "train_questions": len(train),
            "with_contexts": any(one.contexts for one in train),
            "max_prompt_tokens": data.max_prompt_tokens,
        },
        "train_ids": [one.id for one in train],
        "dev_ids": [example.id for example in data.dev],
        # only an option lets them through
        TEST_QUESTIONS: summary(train, dev) if _allowed(module, data) else {},
        "labels": list(_labels(data)),
        "training": {
            "step": step,
            "of_steps": total_steps(module.trainer, module.data.steps_per_epoch),
            "epochs": module.trainer.max_epochs,
            "batch_size": data.batch_size,
            "learning_rate": module.learning_rate,
            "optimizer": module.optimizer if isinstance(module.optimizer, str) else "class_path",
            "precision": str(module.trainer.precision),
            "seed": data.seed,
        },
        "scores": scores,
        "calibration": calibration,
        "chosen_by": {"score": best[0], "value": best[1]},
        "parameters": {"trainable": trainable, "total": total},
        "versions": versions(),
        "created": now(),
    }
    (folder / RECORD_FILE).write_text(json.dumps(record, indent=2, default=str) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(_card(record), encoding="utf-8")


def _trained_on(module: Any, data: Any) -> Sequence[Record]:
    """The training records, those of an earlier fit of the same weights too."""
    if module.learned is not None:
        return module.learned.train
    return [data.records[example.id] for example in data.train]


def _allowed(module: Any, data: Any) -> bool:
    earlier = module.learned is not None and bool(module.learned.test_questions)
    return bool(data.allow_test_questions) or earlier


def _labels(data: Any) -> tuple[str, ...]:
    """The decisions that it learned for questions without options: what `ask` offers."""
    found = [data.records[example.id] for example in data.train]
    return next((one.labels for one in found if one.labels and not one.options), ())


def _calibration_text(found: dict[str, Any] | None) -> str:
    if found is None:
        return "None: nothing was validated."
    target = f"at most {found['target_risk']:.0%} wrong"
    if not found["answered"]:
        rule = f'no confidence was enough for {target}: every answer is "uncertain"'
    else:
        low, high = found["risk_ci95"]
        rule = (
            f"answers are given from a confidence of {found['threshold']:.3g} on, where {found['wrong']} of "
            f"{found['answered']} were wrong (95% {low:.0%} to {high:.0%}; the target is {target}), and are "
            '"uncertain" below'
        )
    return f"On the {found['n']} validation questions: temperature {found['temperature']:.3g}; {rule}."


def _on_test_questions(counts: dict[str, dict[str, int]]) -> list[str]:
    """The card's section on test questions that were trained on; empty for most."""
    if not counts:
        return []
    text = f"WARNING: {told(counts)} (`{OPTION} true`). Its scores on these benchmarks mean nothing."
    return ["## Trained on test questions", "", text, ""]


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
            *_on_test_questions(record[TEST_QUESTIONS]),
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
            table(scores) or "| none | nothing was validated |",
            "",
            "A validation set is small: read them with their uncertainty, and judge by `medqlora test`.",
            "",
            "## Confidence",
            "",
            _calibration_text(record["calibration"]),
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
