"""A whole merge: weights, companions, verification; the output folder appears at the end, or not at all."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import torch

from medqlora.artifacts.merge.folder import REPORT_FILE, REPORT_PAGE, card, write_companions
from medqlora.artifacts.merge.live_model import LiveBase, local_folder, weights_by_tensor
from medqlora.artifacts.merge.lora_update import LoRAUpdate, read_update
from medqlora.artifacts.merge.merging import Merged, MergeOptions, merge_adapter
from medqlora.artifacts.merge.shards import ShardedFolder, partial_folder
from medqlora.artifacts.merge.whole_model import merge_as_model, quantize_folder
from medqlora.artifacts.origin import license_of
from medqlora.artifacts.output import check_output
from medqlora.config.backends import VISION_BACKENDS, BaseQuantization
from medqlora.errors import InputError
from medqlora.evaluation.report.verification_page import render_verification
from medqlora.evaluation.verification import Limits, Verification, compare
from medqlora.inference.loading import build_backend, read_trained
from medqlora.inference.predictor import Predictor
from medqlora.models import Backend
from medqlora.models.adapters import check_adapter_base, read_adapter, reject_quantization_made_up
from medqlora.models.precision import DTYPES
from medqlora.records import Prediction, Record
from medqlora.utils.digests import file_digest
from medqlora.utils.files import disk_full, write_text
from medqlora.utils.types import JsonObject

Progress = Callable[[str, int, int], None]
#: the base model's option in other commands
_BASE = "--model.backend.base"
#: what no comparison of labels covers
NO_TEXT = "Generated text: the labels' log-probabilities were compared, not what the models write."
#: why there is no comparison
NOT_ASKED = "The answers: --verify false left the comparison out."
_IN_FLOAT32 = "Computing in 16 bits: both models computed in float32."


@dataclass(frozen=True)
class MergeRequest:
    """What is merged, and how.

    Attributes:
        adapter: adapter folder in PEFT's format, or a run's folder.
        out: folder to write; it does not exist, or is empty.
        base: base model, where it differs from the adapter's record.
        onto: folder of 16-bit weights to merge onto instead of the dequantized base model.
        options: how the weights are stored.
        device: device of the verification.
    """

    adapter: str
    out: Path
    base: str | None = None
    onto: str | None = None
    options: MergeOptions = field(default_factory=MergeOptions)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


class Merge:
    """A merge that has been checked: nothing is written before `write`.

    Raises:
        InputError: the output folder is not empty, there is no such adapter, or it belongs to another base model.
    """

    def __init__(self, request: MergeRequest) -> None:
        self.request = request
        check_output(request.out)
        self.trained = trained = read_trained(request.adapter, "--adapter")
        if trained.adapter is None:
            raise InputError(f"--adapter {request.adapter}: it is a base model: name an adapter's folder")
        self.adapter = Path(trained.adapter).expanduser()
        self.record: JsonObject = read_adapter(trained.adapter, "--adapter")
        self.backend: Backend = build_backend(
            trained, base=request.base, backend=None, device=torch.device("cpu")
        )
        try:
            check_adapter_base(trained.adapter, self.backend.base, self.backend.identity())
        except InputError as error:
            raise _renamed(error, {"--model.adapter": "--adapter", _BASE: "--base"}) from error
        if request.base is not None and "base" not in self.backend.option_names():
            _check_embedded(request.base, self.backend)
        self.backend.check_adapter(trained.adapter, "--adapter")
        vision = trained.backend in VISION_BACKENDS
        self.live = _live_base(self.backend, DTYPES.get(trained.precision, torch.float32), vision=vision)
        if request.onto is not None:
            reject_quantization_made_up(self.record, f"--onto {request.onto}")
            _check_onto(request.onto, self.live.name)

    @property
    def onto(self) -> str:
        """What the update is added to, in words."""
        if self.request.onto is not None:
            return f"those of {self.request.onto}"
        if self.live.quantization == "none":
            return "the base model's own"
        return f"the base model's, dequantized from {self.live.quantization}"

    def write(self, progress: Progress, update: LoRAUpdate | None = None) -> tuple[ShardedFolder, Merged]:
        """Writes all files but the report into the hidden folder beside the output.

        Args:
            progress: called with the name of the step, finished tensors and all.
            update: what is added to the base model; None for the adapter's own.

        Raises:
            InputError: the adapter changes a weight that the base model does not have, or the disk is full. The hidden
                folder has been removed.
            OSError: another error of the disk.
        """
        made_from: Mapping[str, object] = {
            "adapter": file_digest(self.adapter / "adapter_model.safetensors"),
            "config": file_digest(self.adapter / "adapter_config.json"),
            "base": self.backend.identity(),
            "quantization": self.live.quantization,
            "onto": self.request.onto,
            "dtype": self.request.options.dtype,
            "shard_bytes": self.request.options.shard_bytes,
            "quantize": self.request.options.quantize,
            "modules": None if update is None else sorted(update.modules),
        }
        self.request.out.parent.mkdir(parents=True, exist_ok=True)
        folder = ShardedFolder(self.request.out, json.loads(json.dumps(made_from)))
        place = (
            LiveBase(self.request.onto, None, "none", False, torch.float32, self.live.vision)
            if self.request.onto
            else self.live
        )
        weights = weights_by_tensor(place)

        def merging(done: int, total: int) -> None:
            progress("Merging", done, total)

        options = self.request.options
        try:
            if weights is None:
                merged = merge_as_model(place, self.adapter, folder, options, merging)
            else:
                added = read_update(self.adapter) if update is None else update
                merged = merge_adapter(weights, added, folder, options, merging)
            base = local_folder(place.name, place.revision)
            write_companions(folder.partial, base, self.adapter, self.record, merged.dtype, options.quantize)
            if options.quantize is not None:
                quantize_folder(
                    folder.partial,
                    options.quantize,
                    merged.dtype,
                    options.shard_bytes,
                    vision=self.live.vision,
                )
        except InputError:
            folder.discard()
            raise
        except OSError as error:
            folder.discard()
            raise _as_input_error(error, self.request.out) from error
        return folder, merged

    def verify(
        self, folder: ShardedFolder, questions: Sequence[Record], limits: Limits, progress: Progress
    ) -> Verification:
        """Compares the merged model with the live one.

        Args:
            folder: as `write` left it.
            questions: with labels.
            limits: what the export may change.
            progress: called with the name of the step, finished questions and all.

        Raises:
            InputError: no question has labels, or a model can't be loaded.
        """
        records = labelled(questions)
        device = self.request.device
        live = Predictor.load(self.adapter, base=self.request.base, device=device, generate=False)
        before = predictions(live, records, "Live model", progress)
        del live
        exported = Predictor.load(folder.partial, device=device, generate=False)
        after = predictions(exported, records, "Merged model", progress)
        return compare(before, after, limits, records)

    def discard(self) -> None:
        """Removes what was written, and the finished shards of a killed process."""
        shutil.rmtree(partial_folder(self.request.out), ignore_errors=True)


def labelled(questions: Sequence[Record]) -> list[Record]:
    """The questions with labels. Raises InputError where there are none."""
    records = [record for record in questions if record.labels]
    if not records:
        raise InputError("--questions: none of them has labels to compare: pass others, or --verify false")
    return records


def predictions(
    predictor: Predictor, records: Sequence[Record], step: str, progress: Progress
) -> list[Prediction]:
    """Predictions in small groups, so that progress moves; from here on the predictor computes in float32.

    In 16 bits the rounding of a model's products would be larger than what an export loses.
    """
    predictor.compute_in_float32()
    found: list[Prediction] = []
    size = 8
    for start in range(0, len(records), size):
        found += predictor.predict(records[start : start + size])
        progress(step, min(start + size, len(records)), len(records))
    return found


def _live_base(backend: Backend, dtype: torch.dtype, *, vision: bool) -> LiveBase:
    """How the backend holds its base model."""
    options = backend.options()
    kinds: dict[object, BaseQuantization] = {kind: kind for kind in get_args(BaseQuantization)}
    revision = options.get("revision")
    return LiveBase(
        backend.base,
        None if revision is None else str(revision),
        kinds[options.get("quantization", "nf4")],
        bool(options.get("double_quantization", True)),
        dtype,
        vision,
    )


def _as_input_error(error: OSError, out: Path) -> Exception:
    """The line for a full disk; another error stays as it is."""
    if not disk_full(error):
        return error
    return InputError(
        f"--out {out}: the disk is full: nothing was left there; free some space, or name a folder on another disk"
    )


def _renamed(error: InputError, options: Mapping[str, str]) -> InputError:
    """The message with this command's names of options."""
    words = str(error)
    for name, own in options.items():
        words = words.replace(name, own)
    return InputError(words)


def _check_embedded(base: str, backend: Backend) -> None:
    """Raises InputError for another base model than the embedded one, which has no option for it."""
    from medqlora.models import hub

    try:
        same = hub.identity(base) == backend.identity()
    except InputError as error:
        raise _renamed(error, {_BASE: "--base"}) from error
    if not same:
        raise InputError(
            f"--base {base}: the adapter was trained on this project's embedded model, not on that one: leave it out"
        )


def _check_onto(onto: str, base: str) -> None:
    from medqlora.models import hub
    from medqlora.models.quantization import stored_quantization

    try:
        config, own = hub.load_config(onto), hub.load_config(base)
    except InputError as error:
        raise _renamed(error, {_BASE: "--onto"}) from error
    if (stored := stored_quantization(config)) is not None:
        raise InputError(
            f"--onto {onto}: its weights are quantized ({stored}): name the folder of a 16-bit model"
        )
    for key in ("model_type", "hidden_size", "num_hidden_layers", "vocab_size"):
        one, other = (getattr(part.get_text_config(), key, None) for part in (config, own))
        if one != other:
            raise InputError(
                f"--onto {onto}: its {key} is {one}, and the adapter's base model has {other}: name "
                "the same model in 16 bits"
            )


def finish(
    merge: Merge, folder: ShardedFolder, merged: Merged, verification: Verification | None
) -> dict[str, object]:
    """Writes report and model card, and puts the folder in its place; the report.

    Raises:
        InputError: the disk is full. The hidden folder has been removed.
        OSError: another error of the disk.
    """
    report: dict[str, object] = {
        "adapter": str(merge.adapter),
        "base": merge.live.name,
        "license": license_of(local_folder(merge.live.name, merge.live.revision)).identifier,
        "onto": merge.onto,
        "dtype": merged.dtype,
        "quantized": merge.request.options.quantize,
        "changed_weights": merged.changed,
        "relative_rounding_error": merged.relative_error,
    }
    unverified = [NOT_ASKED] if verification is None else [_IN_FLOAT32, NO_TEXT]
    html = render_verification("Merged model", verification, unverified, report)
    report["not_verified"] = unverified
    report["verification"] = None if verification is None else verification.to_json()
    stored = merge.request.options.quantize or merged.dtype
    try:
        write_text(folder.partial / REPORT_FILE, json.dumps(report, indent=2) + "\n")
        write_text(folder.partial / REPORT_PAGE, html)
        write_text(folder.partial / "README.md", card(merge.record, report, stored))
        folder.finish()
    except OSError as error:
        folder.discard()
        raise _as_input_error(error, merge.request.out) from error
    return report
