"""The adapter folder: PEFT's files, the tokenizer, the prompt, and a card that says how the adapter was made."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from medqlora.artifacts.adapter_record import AdapterRecord
from medqlora.artifacts.card import model_card
from medqlora.artifacts.evaluated_weights import TRACE_FILE
from medqlora.evaluation import TrainingTrace
from medqlora.inference.training_scope import TrainingScope
from medqlora.models.adapters import RECORD_FILE
from medqlora.records import Record
from medqlora.utils.files import disk_errors_of_rust
from medqlora.utils.manifests import put_in_place, write_folder_manifest
from medqlora.utils.types import Tokenizer


@dataclass(frozen=True)
class AdapterContents:
    """Everything that an adapter folder is written from.

    Attributes:
        weights: the adapter's tensors by parameter name of the PEFT model, as "….lora_A.default.weight".
        peft_config: the fields of PEFT's LoraConfig, as plain values.
        tokenizer: the base model's.
        train: the training records.
        invented: name of the training data set, where it is invented.
        record: the content of `medqlora.json`; the card shows it too.
    """

    weights: Mapping[str, Tensor]
    peft_config: Mapping[str, object]
    tokenizer: Tokenizer
    train: Sequence[Record]
    record: AdapterRecord
    invented: str | None = None


def write_adapter(contents: AdapterContents, folder: Path) -> None:
    """Writes an adapter folder in PEFT's format, and puts it in the place of an earlier one at once.

    `PeftModel.from_pretrained(base, folder)` loads it; nothing of this project is needed for that.

    Args:
        contents: what it holds.
        folder: may exist; its parent is made.

    Raises:
        OSError: it can't be written; the folder that was there is unchanged.
    """
    new, old = (folder.with_name(f".{folder.name}.{kind}") for kind in ("new", "old"))
    for path in (new, old):
        _remove(path)
    try:
        new.mkdir(parents=True)
        with disk_errors_of_rust(new):
            _write_files(contents, new)
        write_folder_manifest(new)
    except OSError:
        shutil.rmtree(new, ignore_errors=True)  # on a full disk it would take up room
        raise
    put_in_place(new, folder, old)
    _remove(old)


def _write_files(contents: AdapterContents, folder: Path) -> None:
    save_peft_files(contents.peft_config, contents.weights, folder)
    contents.tokenizer.save_pretrained(str(folder))
    TrainingTrace.of(contents.train).save(folder / TRACE_FILE)
    TrainingScope.of(contents.train, contents.invented).save(folder)
    text = json.dumps(contents.record, indent=2, default=str)
    (folder / RECORD_FILE).write_text(f"{text}\n", encoding="utf-8")
    (folder / "README.md").write_text(model_card(contents.record), encoding="utf-8")


def save_peft_files(peft_config: Mapping[str, object], weights: Mapping[str, Tensor], folder: Path) -> None:
    """Writes `adapter_config.json` and `adapter_model.safetensors` as `PeftModel.save_pretrained` does.

    PEFT's own function needs the model, and so the base model's weights. In the file a tensor's name is that of its
    parameter without the adapter's name, and a DoRA magnitude's also without ".weight" (PEFT 0.21).

    Args:
        peft_config: LoraConfig's fields.
        weights: by parameter name.
        folder: exists.
    """
    from peft import LoraConfig
    from safetensors.torch import save_file

    config = LoraConfig.from_peft_type(**{**peft_config, "inference_mode": True})
    config.save_pretrained(str(folder))
    tensors = {
        name.replace(".lora_magnitude_vector.default.weight", ".lora_magnitude_vector").replace(
            ".default.", "."
        ): value.contiguous()
        for name, value in weights.items()
    }
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def _remove(path: Path) -> None:
    """Removes a folder; of a link, by which somebody keeps `adapter/` elsewhere, the link alone."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)
