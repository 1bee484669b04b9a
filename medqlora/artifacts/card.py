"""The model card of an adapter folder, `README.md`, in the form that the Hub reads."""

import json
from collections.abc import Mapping

from medqlora.artifacts.adapter_record import AdapterRecord
from medqlora.artifacts.card_metadata import front_matter, hub_name, on_the_hub
from medqlora.data.test_sets import OPTION, told
from medqlora.inference import Calibration

CAUTION = "Not medical advice. A research artefact: it can be wrong, and confidently so."


def model_card(record: AdapterRecord) -> str:
    """The card as Markdown. https://huggingface.co/docs/hub/model-cards"""
    parts = [
        *_head(record),
        *on_test_questions(record["test_questions"]),
        *_combined(record.get("combined")),
        *_loading(record["base"]),
        *_prompt(record["prompt"]),
        *_scores(record["scores"], record["data"].get("validation_sample")),
        *_section("Confidence", _calibration(record["calibration"], record.get("calibrated_on"))),
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


def _head(record: AdapterRecord) -> list[str]:
    name = record["base"] if on_the_hub(record["base"]) else hub_name(record["base"], record["backend"])
    return [
        "---",
        *front_matter(record),
        "---",
        "",
        f"# LoRA adapter for medical question answering, on {name}",
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


def _combined(combined: Mapping[str, object] | None) -> list[str]:
    """The section on the adapters that this one was combined from; empty for an adapter that was trained."""
    members = None if combined is None else combined.get("members")
    if combined is None or not isinstance(members, list):
        return []
    rows = [
        f"| {one['weight']:.4g} | {one['adapter']} | {one['fold']} | {one['seed']} | {one['adapter_sha256']} |"
        for one in members
    ]
    return _section(
        "Combined from",
        f"Not trained: combined by PEFT's `add_weighted_adapter`, method {combined.get('method')}, rank "
        f"{combined.get('rank')}.",
        "",
        "| weight | adapter | fold | seed | SHA-256 |",
        "|---|---|---|---|---|",
        *rows,
    )


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


def _scores(scores: Mapping[str, float], sample: object) -> list[str]:
    rows = _rows({name: f"{value:.4g}" for name, value in scores.items()})
    lines = [
        "| score | value |",
        "|---|---|",
        rows or "| none | nothing was validated |",
        "",
        "A validation set is small: read them with their uncertainty, and judge by `medqlora test`.",
    ]
    if isinstance(sample, Mapping):
        of = f"{sample['size']} of {sample['of']} validation questions, by label with seed {sample['seed']}"
        lines += ["", f"A sample: {of}."]
    return _section("Validation scores of these weights", *lines)


def _calibration(values: Mapping[str, object] | None, origin: Mapping[str, object] | None = None) -> str:
    """What the validation questions say of the confidence, in the words of `Calibration`."""
    if values is None:
        return "None: nothing was validated."
    found = Calibration.from_json(values, "the adapter's record")
    asked = f"On the {found.n} validation question{'s' * (found.n != 1)}:"
    if origin is not None:
        asked = f"On {found.n} {origin.get('kind', 'other')} predictions of a cross-validation:"
    if found.caution is not None:
        return (
            f"Not calibrated: {found.caution}. The temperature stays {found.temperature:.3g}, and the threshold that "
            "is saved with the adapter shows nothing."
        )
    target = f"at most {found.target_risk:.0%} wrong"
    fitted = f"{asked} temperature {found.temperature:.3g}"
    if found.temperature == 1 and found.answered == found.n and not found.wrong:
        fitted += " (not fitted: all of them were decided rightly)"
    if found.risk_ci95 is None:
        return f'{fitted}; no confidence was enough for {target}: every answer is "uncertain".'
    low, high = found.risk_ci95
    return (
        f"{fitted}; answers are given from a confidence of {found.threshold:.3g} on, where {found.wrong} of "
        f"{found.answered} were wrong (95% {low:.0%} to {high:.0%}; the target is {target}), and are "
        '"uncertain" below.'
    )


def _training(record: AdapterRecord) -> list[str]:
    return _section(
        "Training",
        "| setting | value |",
        "|---|---|",
        _rows({f"data: {name}": value for name, value in record["data"].items() if value is not None}),
        _rows(dict(record["training"])),
        _rows({f"LoRA {name}": value for name, value in record["lora"].items()}),
        _rows({f"{name} parameters": f"{value:,}" for name, value in record["parameters"].items()}),
    )
