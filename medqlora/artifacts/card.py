"""The model card of an adapter folder, `README.md`, in the form that the Hub reads."""

import json
from collections.abc import Mapping

from medqlora.artifacts.adapter_record import AdapterRecord
from medqlora.data.test_sets import OPTION, told

CAUTION = "Not medical advice. A research artefact: it can be wrong, and confidently so."


def model_card(record: AdapterRecord) -> str:
    """The card as Markdown. https://huggingface.co/docs/hub/model-cards"""
    parts = [
        *_head(record["base"]),
        *on_test_questions(record["test_questions"]),
        *_loading(record["base"]),
        *_prompt(record["prompt"]),
        *_scores(record["scores"]),
        *_section("Confidence", _calibration(record["calibration"])),
        *_training(record),
        *_section("Versions", "| package | version |", "|---|---|", _rows(record["versions"])),
        f"Made by medqlora, {record['created']}.",
        "",
    ]
    return "\n".join(parts)


def _section(title: str, *lines: str) -> list[str]:
    return [f"## {title}", "", *lines, ""]


def _rows(values: Mapping[str, object]) -> str:
    return "\n".join(f"| {name} | {value} |" for name, value in values.items())


def _head(base: str) -> list[str]:
    front = ["library_name: peft", "tags: [medical, question-answering, qlora, lora]"]
    if "/" in base and not base.startswith((".", "/", "~")):  # a name on the Hub
        front.insert(0, f"base_model: {base}")
    return [
        "---",
        *front,
        "---",
        "",
        f"# LoRA adapter for medical question answering, on {base}",
        "",
        CAUTION,
        "",
    ]


def on_test_questions(counts: Mapping[str, Mapping[str, int]]) -> list[str]:
    """The section on test questions that were trained on; empty for most adapters."""
    if not counts:
        return []
    text = f"WARNING: {told(counts)} (`{OPTION} true`). Its scores on these benchmarks mean nothing."
    return _section("Trained on test questions", text)


def _loading(base: str) -> list[str]:
    return _section(
        "Load it",
        "```python",
        "from peft import PeftModel",
        "from transformers import AutoModelForCausalLM",
        f'base = AutoModelForCausalLM.from_pretrained("{base}")',
        'model = PeftModel.from_pretrained(base, "path/of/this/folder")',
        "```",
    )


def _prompt(prompt: Mapping[str, object]) -> list[str]:
    template = json.dumps(prompt["template"], indent=2, ensure_ascii=False)
    named = f"`{prompt['name']}`, SHA-256 {prompt['sha256']}:"
    return _section("Prompt", named, "", "```json", template, "```")


def _scores(scores: Mapping[str, float]) -> list[str]:
    rows = _rows({name: f"{value:.4g}" for name, value in scores.items()})
    return _section(
        "Validation scores of these weights",
        "| score | value |",
        "|---|---|",
        rows or "| none | nothing was validated |",
        "",
        "A validation set is small: read them with their uncertainty, and judge by `medqlora test`.",
    )


def _calibration(values: Mapping[str, object] | None) -> str:
    if values is None:
        return "None: nothing was validated."
    target = f"at most {values['target_risk']:.0%} wrong"
    interval = values["risk_ci95"]
    if not values["answered"] or not isinstance(interval, (list, tuple)):
        rule = f'no confidence was enough for {target}: every answer is "uncertain"'
    else:
        low, high = interval
        rule = (
            f"answers are given from a confidence of {values['threshold']:.3g} on, where {values['wrong']} of "
            f"{values['answered']} were wrong (95% {low:.0%} to {high:.0%}; the target is {target}), and are "
            '"uncertain" below'
        )
    return f"On the {values['n']} validation questions: temperature {values['temperature']:.3g}; {rule}."


def _training(record: AdapterRecord) -> list[str]:
    return _section(
        "Training",
        "| setting | value |",
        "|---|---|",
        _rows({f"data: {name}": value for name, value in record["data"].items()}),
        _rows(dict(record["training"])),
        _rows({f"LoRA {name}": value for name, value in record["lora"].items()}),
        _rows({f"{name} parameters": f"{value:,}" for name, value in record["parameters"].items()}),
    )
