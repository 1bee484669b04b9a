"""The card that goes to the Hub: a folder's own card, with the test's figures in its metadata.

The form is the Hub's model-index: https://huggingface.co/docs/hub/model-cards#evaluation-results
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from medqlora.artifacts.card import CAUTION

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

CARD = "README.md"
_FRONT = re.compile(r"\A---\r?\n(.*?)^---\r?$\n?", re.DOTALL | re.MULTILINE)
#: figure of a test report → the Hub's metric, and its words
_FIGURES = {
    "accuracy": ("accuracy", "Accuracy"),
    "macro_f1": ("f1", "Macro F1"),
    "token_f1": ("f1", "Token F1"),
    "rouge_l": ("rouge", "ROUGE-L"),
    "ece": ("ece", "Expected calibration error"),
    "brier": ("brier_score", "Brier score"),
}
#: set of a report → its name on the Hub
_DATASETS = {"PubMedQA": "qiaojin/PubMedQA"}


def model_index(name: str, report: Mapping[str, object]) -> list[object]:
    """The model-index of a test report: each question set with its split, figures and 95% intervals.

    Args:
        name: of the model on the Hub.
        report: test_report.json.
    """
    from huggingface_hub.repocard_data import eval_results_to_model_index

    suite = report.get("suite")
    sets = suite.get("sets") if isinstance(suite, Mapping) else None
    reports = [report]
    if isinstance(sets, Mapping):
        reports = [one for one in sets.values() if isinstance(one, Mapping)]
    results = [result for one in reports for result in _results(one, report)]
    return list(eval_results_to_model_index(name, results)) if results else []


def _results(one: Mapping[str, object], whole: Mapping[str, object]) -> "list[EvalResult]":
    from huggingface_hub import EvalResult

    dataset = str(one.get("dataset", whole.get("dataset", "unknown")))
    sample = one.get("sample") or whole.get("sample")
    free = one.get("decided_by") == "exact_match"
    leaked = bool(one.get("trained_on_test_questions") or whole.get("trained_on_test_questions"))
    figures = [
        key for key in _FIGURES if isinstance(one.get(key), (int, float)) and not isinstance(one[key], bool)
    ]
    found = []
    for key in figures:
        if free == (key in ("accuracy", "macro_f1", "ece", "brier")):
            continue  # of free answers the overlap of words, of decisions the decisions
        kind, words = _FIGURES[key]
        interval = one.get(f"{key}_ci95")
        args: dict[str, object] = {"n": one.get("n")}
        if isinstance(interval, (list, tuple)) and len(interval) == 2:
            low, high = (float(str(end)) for end in interval)
            words += f" (95% interval {low:.3f} to {high:.3f})"
            args["ci95"] = [round(low, 6), round(high, 6)]
        if leaked:
            words += ", TRAINED ON TEST QUESTIONS"
        if sample:
            words += ", of a sample"
            args["sample"] = sample
        found.append(
            EvalResult(
                task_type="question-answering",
                task_name="Medical question answering",
                dataset_type=_DATASETS.get(dataset, dataset.lower()),
                dataset_name=dataset,
                dataset_split=str(one.get("split", whole.get("split", "test"))),
                metric_type=kind,
                metric_name=words,
                metric_value=round(float(str(one[key])), 6),
                metric_args=args,
            )
        )
    return found


def with_index(card: str, index: list[object]) -> str:
    """A card with this model-index in its front matter, in place of an older one; the rest stays as it is."""
    if not index:
        return card
    block = yaml.safe_dump({"model-index": index}, sort_keys=False, allow_unicode=True)
    found = _FRONT.match(card)
    if found is None:
        return f"---\n{block}---\n\n{card}"
    kept = re.sub(r"^model-index:.*\n(?:[ \t-].*\n|\n)*", "", found[1], flags=re.MULTILINE)
    return f"---\n{kept}{block}---\n{card[found.end() :]}"


def plain_card(name: str, files: list[str], license_: str | None, base: str | None) -> str:
    """A card for a folder without one, as that of a GGUF file."""
    front = {
        "license": license_ or "other",
        **({} if license_ else {"license_name": "as-the-base-model", "license_link": "LICENSE"}),
        **({"base_model": base} if base else {}),
        "pipeline_tag": "text-generation",
        "tags": [
            "medical",
            "question-answering",
            *(["gguf"] if any(f.endswith(".gguf") for f in files) else []),
        ],
    }
    lines = "\n".join(f"- `{file}`" for file in files)
    matter = yaml.safe_dump(front, sort_keys=False)
    return f"---\n{matter}---\n\n# {name}\n\n{CAUTION}\n\n{lines}\n\nMade by medqlora.\n"


def read_card(folder: Path) -> str | None:
    """The folder's card; None without one.

    Raises:
        OSError, UnicodeDecodeError: it can't be read.
    """
    file = folder / CARD
    return file.read_text(encoding="utf-8") if file.is_file() else None
