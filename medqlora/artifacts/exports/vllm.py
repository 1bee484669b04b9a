"""An adapter folder for vLLM and other servers of PEFT adapters, scored by transformers and PEFT."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from medqlora.artifacts.exports.plain_peft import PlainPEFT
from medqlora.artifacts.exports.staging import Staging
from medqlora.artifacts.merge.live_model import local_folder
from medqlora.artifacts.merge.run import NO_TEXT, Progress, labelled, predictions
from medqlora.artifacts.serving_check import check_served, decision_file, vllm_command
from medqlora.data import encode_all
from medqlora.errors import InputError
from medqlora.evaluation.report.verification_page import render_verification
from medqlora.evaluation.verification import Limits, Verification, compare
from medqlora.inference.loading import build_backend, read_trained, refuse_images
from medqlora.inference.predictor import Predictor
from medqlora.models import hub
from medqlora.models.adapters import (
    adapter_config,
    base_of,
    read_adapter,
    reject_quantization_made_up,
)
from medqlora.models.quantization import stored_quantization
from medqlora.records import Record

_NOT_RUN = "vLLM itself: it was not run. Plain transformers with PEFT scored the folder, in float32."


@dataclass(frozen=True)
class FolderRequest:
    """What is exported for a server of PEFT adapters.

    Attributes:
        adapter: adapter folder in PEFT's format, or a run's folder.
        out: folder to write; it does not exist, or is empty.
        base: base model that is served, where it differs from the adapter's record.
        device: device of the comparison.
    """

    adapter: str
    out: Path
    base: str | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


class FolderExport:
    """An export that has been checked: nothing is written before `write`.

    Raises:
        InputError: vLLM refuses the adapter, or the output exists.
    """

    def __init__(self, request: FolderRequest) -> None:
        self.request = request
        self.staging = Staging(request.out, None)
        self.trained = read_trained(request.adapter, "--adapter")
        if self.trained.adapter is None:
            raise InputError(f"--adapter {request.adapter}: it is a base model: name an adapter's folder")
        refuse_images(self.trained, "--adapter", "a folder for vLLM")
        self.adapter = Path(self.trained.adapter).expanduser()
        self.record = read_adapter(self.trained.adapter, "--adapter")
        reject_quantization_made_up(self.record, "--to vllm")
        self._config = adapter_config(self.trained.adapter)
        check_served(self._config)
        self.base = request.base or base_of(self.trained.adapter)

    @property
    def command(self) -> str:
        """The command line that serves the folder."""
        return vllm_command(self.base, self.request.out, self.request.out.name, self._config)

    @property
    def lost_bits(self) -> int:
        """The bits that decide the tolerance: those of the quantization that the served base model does not have.

        The adapter was trained on a quantized base model. Files in 16 bits are served as they are, and so without the
        rounding that the adapter was trained on.
        """
        quantization = str(self.trained.backend_options.get("quantization", "nf4"))
        if stored_quantization(hub.load_config(self.base)) is not None:
            return 16
        return {"none": 16, "int8": 8}.get(quantization, 4)

    def write(self) -> None:
        """Copies the folder, with `decision.json`, into the hidden folder."""
        self.staging.begin()
        shutil.copytree(self.adapter, self.staging.folder, dirs_exist_ok=True)
        decision = json.dumps(decision_file(self.record, self.request.out.name), indent=2) + "\n"
        (self.staging.folder / "decision.json").write_text(decision, encoding="utf-8")

    def verify(self, questions: Sequence[Record], limits: Limits, progress: Progress) -> Verification:
        """Compares the folder on the served base model, in plain transformers and PEFT, with the live model.

        Args:
            questions: with labels.
            limits: what the export may change.
            progress: called with the name of the step, finished questions and all.

        Raises:
            InputError: no question has labels, or a model can't be loaded.
        """
        records, device = labelled(questions), self.request.device
        backend = build_backend(self.trained, base=None, backend=None, device=device)
        live = Predictor.load(self.adapter, base=backend.base, device=device, generate=False)
        before = predictions(live, records, "Live model", progress)
        examples = encode_all(
            records, live.prompt, live.tokenizer, live.max_prompt_tokens, progress=False, cached=False
        )
        del live
        served = PlainPEFT(str(local_folder(self.base)), self.staging.folder, device)
        after = served.predict(
            examples, records, lambda done, total: progress("Transformers and PEFT", done, total)
        )
        return compare(before, after, limits, records)

    def finish(self, verification: Verification | None, why: str | None) -> Path:
        """Writes the report, and puts the output in its place; the report's path.

        Args:
            verification: the comparison; None where there was none.
            why: why there was none.
        """
        facts: dict[str, object] = {
            "to": "vllm",
            "adapter": str(self.adapter),
            "base": self.base,
            "command": self.command,
            "scored_by": None if verification is None else "transformers and PEFT, float32",
        }
        unverified = [*([f"The answers: {why}."] if why else []), _NOT_RUN, NO_TEXT]
        report = {
            **facts,
            "not_verified": unverified,
            "verification": None if verification is None else verification.to_json(),
        }
        html = render_verification("Adapter folder for vLLM", verification, unverified, facts)
        return self.staging.finish(report, html)

    def discard(self) -> None:
        """Removes all that was written."""
        self.staging.discard()
