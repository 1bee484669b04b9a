"""GGUF exports: a merged model, an adapter for a base GGUF, and Ollama's folder; each compared in llama.cpp."""

import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import torch

from medqlora.artifacts.exports.staging import Staging
from medqlora.artifacts.exports.tokens import COMPARED, token_fault, token_faults
from medqlora.artifacts.exports.vision_part import (
    KNOWN_FAULTS,
    SCALING,
    check_vision,
    text_alone,
    tower_type,
)
from medqlora.artifacts.gguf import modelfile
from medqlora.artifacts.gguf.adapter import write_gguf_adapter
from medqlora.artifacts.gguf.architecture import shape_of
from medqlora.artifacts.gguf.projector_file import projector_path, write_projector
from medqlora.artifacts.gguf.reading import read_info
from medqlora.artifacts.gguf.vocabulary import check_vocabulary
from medqlora.artifacts.gguf.writing import FileType, check_installed, write_gguf
from medqlora.artifacts.merge.live_model import local_folder
from medqlora.artifacts.merge.lora_update import LoRAUpdate, read_update
from medqlora.artifacts.merge.merging import DType, Merged, MergeOptions
from medqlora.artifacts.merge.run import (
    NO_TEXT,
    NOT_ASKED,
    Merge,
    MergeRequest,
    Progress,
    labelled,
    predictions,
)
from medqlora.artifacts.origin import origin_of
from medqlora.config.exports import BITS
from medqlora.data import encode_all, end_token_ids, lookup
from medqlora.errors import InputError
from medqlora.evaluation.report.verification_page import render_verification
from medqlora.evaluation.verification import Limits, Verification, compare
from medqlora.inference.llama_cpp import LlamaCpp, check_llama_cpp
from medqlora.inference.llama_cpp_images import LlamaCppWithImages, at_tower_size
from medqlora.inference.predictor import Predictor
from medqlora.models import hub
from medqlora.models.adapters import reject_quantization_made_up
from medqlora.models.vision.processor import ImageProcessor
from medqlora.records import Encoded, Record
from medqlora.safety import NOTE
from medqlora.utils.digests import file_digest
from medqlora.utils.types import Tokenizer

#: GGUF type -> data type of the merged weights that it is written from
_MERGED_AS: dict[str, DType] = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}
_TITLES = {"gguf": "GGUF file", "gguf-lora": "GGUF adapter", "ollama": "Folder for Ollama"}
_OLLAMA = (
    "Ollama itself: it was not run. Its template was filled in here, and its token ids compared in llama.cpp."
)
_CACHE = "llama.cpp's default float16 keys and values: here they were float32."


@dataclass(frozen=True)
class ExportRequest:
    """What is exported, and how.

    Attributes:
        to: gguf, gguf-lora or ollama.
        adapter: adapter folder in PEFT's format, or a run's folder.
        out: file that ends with .gguf, or a folder.
        kind: GGUF type, of `medqlora.config.exports.FILE_TYPES`.
        base: base model, where it differs from the adapter's record.
        base_gguf: with gguf-lora, the base model's GGUF file to compare on; None for the dequantized base model in f16.
        pre_tokenizer: llama.cpp's name, where the tokenizer does not tell it.
        license_: the base model's licence, where its files do not tell it.
        device: the live model's.
        verify: whether llama.cpp is needed.
    """

    to: str
    adapter: str
    out: Path
    kind: str = "f16"
    base: str | None = None
    base_gguf: Path | None = None
    pre_tokenizer: str | None = None
    license_: str | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    verify: bool = True


class GGUFExport:
    """An export that has been checked: nothing is written before `write`.

    Raises:
        InputError: a package or program is missing, the output exists, or GGUF can't hold this model.
    """

    def __init__(self, request: ExportRequest) -> None:
        check_installed()
        if request.verify:
            check_llama_cpp()
        check_type(request.kind)
        self.request = request
        self.staging = Staging(request.out, None if request.to == "ollama" else ".gguf")
        merged = request.out.with_name(f".{request.out.name}.merged")
        options = MergeOptions(_MERGED_AS.get(request.kind, "auto"))
        self.merge = Merge(MergeRequest(request.adapter, merged, request.base, None, options, request.device))
        if request.to == "gguf-lora":
            reject_quantization_made_up(self.merge.record, "--to gguf-lora")
        base = self.merge.live
        config = hub.load_config(base.name, base.revision)
        folder = local_folder(base.name, base.revision)
        if base.vision:
            check_vision(request.to, request.out, config, folder)
        shape_of(config, base.name)
        check_vocabulary(folder, request.pre_tokenizer)
        self.origin = origin_of(base.name, base.revision, folder, request.license_)
        if request.base_gguf is not None:
            read_info(request.base_gguf, "--base_gguf")
        self.prompt = lookup(self.merge.trained.prompt)
        self.tokenizer: Tokenizer = self.merge.backend.tokenizer()
        if request.to == "ollama":
            self.template  # noqa: B018  # raises InputError

    @property
    def template(self) -> str:
        """The prompt in Ollama's language."""
        return modelfile.ollama_template(self.prompt, self.tokenizer, self.merge.trained.labels)

    def write(self, progress: Progress) -> None:
        """Writes the files into the hidden folder.

        Raises:
            InputError: GGUF can't hold a weight, `llama-quantize` failed, or the disk is full.
        """
        self.staging.begin()
        if self.request.to == "gguf-lora":
            write_gguf_adapter(
                read_update(self.merge.adapter),
                self.merge.live.name,
                self.staging.gguf,
                self._metadata(),
                self.origin,
            )
            return
        folder, merged = self._merged(progress)
        self._write_model(folder, merged, self.staging.gguf, self.request.kind, progress)
        if self.merge.live.vision:
            write_projector(
                folder, self.projector, tower_type(self.request.kind), self._metadata(), origin=self.origin
            )
        if self.request.to == "ollama":
            license_file = folder / "LICENSE"
            text = modelfile.modelfile(
                self.staging.gguf,
                self.template,
                self.tokenizer.decode(list(end_token_ids(self.prompt, self.tokenizer)[:1])),
                license_file.read_text("utf-8", errors="replace") if license_file.is_file() else "",
            )
            (self.staging.folder / "Modelfile").write_text(text, encoding="utf-8")

    @property
    def projector(self) -> Path:
        """The file of the vision tower in the hidden folder; a vision-language model alone has one."""
        return projector_path(self.staging.gguf)

    def _merged(self, progress: Progress, update: LoRAUpdate | None = None) -> tuple[Path, Merged]:
        """The folder of the merged model, beside the output. Messages name the output that the user named."""
        try:
            folder, merged = self.merge.write(progress, update)
        except InputError as error:
            words = str(error).replace(str(self.merge.request.out), str(self.request.out))
            raise InputError(words) from error
        return folder.partial, merged

    def _write_model(self, folder: Path, merged: Merged, path: Path, kind: str, progress: Progress) -> None:
        direct = kind in BITS
        first: FileType = cast(FileType, kind) if direct else "bf16" if merged.dtype == "bfloat16" else "f16"
        target = path if direct else path.with_name(f".{path.name}.{first}")
        write_gguf(
            folder,
            target,
            first,
            self._metadata(),
            origin=self.origin,
            pre_tokenizer=self.request.pre_tokenizer,
            progress=lambda done, total: progress("Writing GGUF", done, total),
        )
        if not direct:
            llama_quantize(target, path, kind)
            target.unlink()

    def _metadata(self) -> dict[str, str | list[str]]:
        """Our own keys: base model, prompt, labels and calibration."""
        record = self.merge.record
        return {
            "medqlora.base": self.merge.live.name,
            "medqlora.base_identity": self.merge.backend.identity(),
            "medqlora.base_sha256": self.origin.sha256,
            "medqlora.adapter_sha256": file_digest(self.merge.adapter / "adapter_model.safetensors")[
                "sha256"
            ],
            "medqlora.labels": list(self.merge.trained.labels),
            "medqlora.prompt": json.dumps(record.get("prompt")),
            "medqlora.calibration": json.dumps(record.get("calibration")),
            "medqlora.note": NOTE,
        }

    def verify(self, questions: Sequence[Record], limits: Limits, progress: Progress) -> "Checked":
        """Compares llama.cpp with the live model: label log-probabilities, and the token ids of some prompts.

        Args:
            questions: with labels.
            limits: what the export may change.
            progress: called with the name of the step, finished items and all.

        Raises:
            InputError: no question has labels, or llama.cpp can't load the file.
        """
        records = labelled(questions)
        reader = self.merge.backend.images()
        if isinstance(reader, ImageProcessor):
            records = [at_tower_size(record, reader) for record in records]
        model, lora = self._runtime_files(progress)
        loads = f"--base_gguf {model}" if self.request.base_gguf else str(model)
        live = Predictor.load(
            self.merge.adapter, base=self.request.base, device=self.request.device, generate=False
        )
        before = predictions(live, records, "Live model", progress)
        limit = live.max_prompt_tokens
        del live
        examples = self._encoded(records, limit)
        longest = max(len(one.prompt) + max(map(len, one.labels)) for one in examples)
        with self._runtime(model, lora, longest, loads) as runtime:
            # around an image; each request compares the number of all tokens
            faults = token_faults(runtime, self.tokenizer, [text_alone(example) for example in examples])
            if self.request.to == "ollama":
                faults += self._template_faults(runtime, records, limit)
            by_id = {record.id: record for record in records}
            after = runtime.predict(examples, by_id, lambda done, total: progress("llama.cpp", done, total))
        return Checked(compare(before, after, limits, records), tuple(faults), min(len(examples), COMPARED))

    def _runtime(self, model: Path, lora: Path | None, longest: int, named: str) -> LlamaCpp:
        reader = self.merge.backend.images()
        if isinstance(reader, ImageProcessor):
            return LlamaCppWithImages(model, self.projector, longest, reader, self.tokenizer)
        return LlamaCpp(model, longest, lora, named=named)

    def _runtime_files(self, progress: Progress) -> tuple[Path, Path | None]:
        """The GGUF files of the model and of the adapter."""
        if self.request.to != "gguf-lora":
            return self.staging.gguf, None
        if self.request.base_gguf is not None:
            return self.request.base_gguf, self.staging.gguf
        folder, merged = self._merged(progress, LoRAUpdate({}))
        base = self.staging.folder / ".base.gguf"
        self._write_model(folder, merged, base, "f16", progress)
        return base, self.staging.gguf

    def _encoded(self, records: Sequence[Record], limit: int) -> list[Encoded]:
        images = self.merge.backend.images()
        return encode_all(
            records, self.prompt, self.tokenizer, limit, progress=False, cached=False, images=images
        )

    def _template_faults(self, runtime: LlamaCpp, records: Sequence[Record], limit: int) -> list[str]:
        """Where Ollama's template gives other token ids than our prompt of the question alone."""
        bare = [Record(one.id, one.question, labels=one.labels) for one in records[:COMPARED]]
        for record, example in zip(bare, self._encoded(bare, limit), strict=True):
            text = modelfile.rendered(self.template, record.question.strip())
            fault = token_fault(list(example.prompt), runtime.tokens(text), self.tokenizer.bos_token_id)
            if fault is not None:
                return [f"Ollama's template: {fault}"]
        return []

    def finish(self, checked: "Checked | None") -> Path:
        """Writes the report, and puts the output in its place; the report's path."""
        (self.staging.folder / ".base.gguf").unlink(missing_ok=True)
        report: dict[str, object] = {
            "to": self.request.to,
            "type": "f32" if self.request.to == "gguf-lora" else self.request.kind,
            "adapter": str(self.merge.adapter),
            "base": self.merge.live.name,
            "license": self.origin.license.identifier or "unknown: pass --license",
            "onto": self._onto(),
            "file": file_digest(self.staging.gguf),
            "tokens_compared": 0 if checked is None else checked.prompts,
        }
        verification, unverified = (
            None if checked is None else checked.verification,
            self._unverified(checked),
        )
        html = render_verification(_TITLES[self.request.to], verification, unverified, report)
        report["not_verified"] = unverified
        report["verification"] = None if verification is None else verification.to_json()
        path = self.staging.finish(report, html)
        self.merge.discard()
        return path

    def _unverified(self, checked: "Checked | None") -> list[str]:
        """What was not compared or not run, a sentence each."""
        if checked is None:
            return [NOT_ASKED]
        left = [f"Token ids of further prompts: those of {checked.prompts} were compared.", _CACHE, NO_TEXT]
        left += [SCALING] if self.merge.live.vision else []
        return [_OLLAMA, *left] if self.request.to == "ollama" else left

    def _onto(self) -> str:
        if self.request.base_gguf is not None:
            return str(self.request.base_gguf)
        return self.merge.onto

    @property
    def known_fault(self) -> str:
        """What is known to differ in llama.cpp for this family; "" for nothing."""
        return KNOWN_FAULTS.get(self.merge.backend.config().model_type, "")

    def discard(self) -> None:
        """Removes all that was written."""
        self.staging.discard()
        self.merge.discard()


@dataclass(frozen=True)
class Checked:
    """What the comparison found.

    Attributes:
        verification: of the label log-probabilities.
        token_faults: where token ids differ.
        prompts: number of prompts whose token ids were compared.
    """

    verification: Verification
    token_faults: tuple[str, ...]
    prompts: int

    @property
    def faults(self) -> list[str]:
        """Why the export is not accepted; empty where it is."""
        return [*self.token_faults, *self.verification.faults]


def check_type(kind: str) -> None:
    """Raises InputError for a type that llama-quantize writes, where that is missing."""
    if kind not in BITS and shutil.which("llama-quantize") is None:
        raise InputError(
            f"--type {kind}: llama.cpp's llama-quantize writes it, and there is none on the PATH: install llama.cpp, "
            "or use --type q8_0"
        )


def llama_quantize(source: Path, path: Path, kind: str) -> None:
    """Raises InputError where llama.cpp's `llama-quantize` fails."""
    done = subprocess.run(
        ["llama-quantize", str(source), str(path), kind.upper()], capture_output=True, text=True, check=False
    )
    if done.returncode or not path.is_file():
        last = ((done.stderr or done.stdout).strip().splitlines() or ["no message"])[-1]
        raise InputError(f"--type {kind}: llama-quantize failed ({last}): use --type q8_0")
