"""The files of a merged model beside its weights: configuration, tokenizer, prompt, calibration and model card."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from medqlora import __version__
from medqlora.artifacts.card import CAUTION, on_test_questions
from medqlora.artifacts.evaluated_weights import TRACE_FILE
from medqlora.artifacts.live_report import ADAPTER_SHA256
from medqlora.data.test_sets import recorded_counts
from medqlora.errors import InputError
from medqlora.inference.training_scope import SCOPE_FILE
from medqlora.models.adapters import RECORD_FILE, TEST_QUESTIONS
from medqlora.models.weight_files import ADAPTER_WEIGHTS
from medqlora.utils.digests import file_digest
from medqlora.utils.files import now

#: of the base model's folder, what a model folder needs beside weights and tokenizer
_FROM_BASE = ("generation_config.json", "LICENSE", "LICENSE.txt", "NOTICE", "USE_POLICY.md",
              "preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json",
              "chat_template.json")  # fmt: skip
#: a tokenizer's files; the adapter's folder has them as it was trained with them
_TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)
REPORT_FILE, REPORT_PAGE = "merge_report.json", "merge_report.html"


def write_companions(
    folder: Path,
    base: Path,
    adapter: Path,
    record: Mapping[str, object],
    dtype: str,
    quantized: str | None = None,
) -> None:
    """Writes everything but the weights.

    Args:
        folder: where the weights are.
        base: the base model's folder.
        adapter: the adapter's folder.
        record: the adapter's own record; {} where it has none.
        dtype: data type of the weights, for config.json.
        quantized: how they are quantized afterwards; None for not at all.

    Raises:
        InputError: the base model's config.json can't be read.
    """
    try:
        config = json.loads((base / "config.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"--base: {base / 'config.json'} can't be read ({error}): copy it again") from error
    config.pop("quantization_config", None)
    for key in ("dtype", "torch_dtype"):
        config.pop(key, None)
    config["dtype"] = dtype
    _write(folder / "config.json", config)
    for name in _FROM_BASE:
        if (base / name).is_file():
            shutil.copyfile(base / name, folder / name)
    tokenizer = adapter if (adapter / "tokenizer.json").is_file() else base
    for name in _TOKENIZER:
        if (tokenizer / name).is_file():
            shutil.copyfile(tokenizer / name, folder / name)
    if (adapter / TRACE_FILE).is_file():  # else a test on questions that were trained on would not be noticed
        shutil.copyfile(adapter / TRACE_FILE, folder / TRACE_FILE)
    if (
        adapter / SCOPE_FILE
    ).is_file():  # else the model would be sure of questions far from its training questions
        shutil.copyfile(adapter / SCOPE_FILE, folder / SCOPE_FILE)
    # without it the weights would be quantized again when they are loaded
    _write(folder / RECORD_FILE, merged_record(record, adapter, dtype, quantized))


def merged_record(
    record: Mapping[str, object], adapter: Path, dtype: str, quantized: str | None = None
) -> dict[str, object]:
    """The adapter's record for the merged model: prompt, labels, calibration and data stay."""
    kept = (
        "prompt",
        "data",
        "labels",
        "calibration",
        "calibrated_on",
        "training",
        "scores",
        "chosen_by",
        "test_questions",
        "lora",
    )
    return {
        **{name: record[name] for name in kept if name in record},
        "train_ids": record.get("train_ids", []),
        "dev_ids": record.get("dev_ids", []),
        "merged": {
            "base": record.get("base"),
            "base_identity": record.get("base_identity"),
            "backend": record.get("backend"),
            "backend_options": record.get("backend_options"),
            "adapter": adapter.name,
            ADAPTER_SHA256: file_digest(adapter / ADAPTER_WEIGHTS)["sha256"],
            "dtype": dtype,
            "quantized": quantized,
            "medqlora": __version__,
            "created": now(),
        },
    }


def card(record: Mapping[str, object], report: Mapping[str, object], dtype: str) -> str:
    """The model card, as the Hub reads it."""
    base = str(record.get("base", "the base model"))
    front = ["---", "library_name: transformers", "tags: [medical, question-answering]"]
    if "/" in base and not base.startswith((".", "/", "~")):
        front.insert(1, f"base_model: {base}\nbase_model_relation: merge")
    if report.get("license"):
        front.append(f"license: {report['license']}")
    verification = report.get("verification")
    if isinstance(verification, Mapping):
        found = [
            f"Merged against live model on {verification['n']} questions: mean difference of a log-probability "
            f"{verification['mean_difference']:.2g} nats, largest {verification['largest_difference']:.2g}; "
            f"{len(verification['changed'])} decisions changed."
        ]
    else:
        found = ["**Not verified**: the merged model was not compared with the adapter on its base model."]
    return "\n".join(
        [
            *front,
            "---",
            "",
            f"# {base} with a medical LoRA adapter merged into it",
            "",
            CAUTION,
            "",
            *on_test_questions(recorded_counts(record.get(TEST_QUESTIONS))),
            f"The weights are {report.get('onto')}, plus the adapter's update, stored as {dtype}.",
            "",
            "## Verification",
            "",
            *found,
            "",
            "## Prompt and confidence",
            "",
            f"The prompt, the labels and the calibration of the answers are in `{RECORD_FILE}`.",
            "",
            f"Made by medqlora {__version__}, {now()}.",
            "",
        ]
    )


def _write(path: Path, value: Mapping[str, object]) -> None:
    path.write_text(json.dumps(value, indent=2, default=str) + "\n", encoding="utf-8")
