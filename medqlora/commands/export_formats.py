"""`medqlora export --to gguf|gguf-lora|ollama|vllm`: the adapter for other runtimes, compared with the live model."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from medqlora.commands.newest_run import adapter_or_newest
from medqlora.commands.verification_options import check_verification, questions_of
from medqlora.config.exports import bits_of
from medqlora.errors import InputError
from medqlora.utils.cache import base_words
from medqlora.utils.files import disk_full
from medqlora.utils.progress import phase

if TYPE_CHECKING:
    from medqlora.artifacts.exports.gguf_export import Checked, GGUFExport
    from medqlora.artifacts.exports.vllm import FolderExport
    from medqlora.evaluation.verification import Verification

#: options that one format alone takes
_OF_ONE_FORMAT = {
    "base_gguf": ("gguf-lora",),
    "pre_tokenizer": ("gguf", "gguf-lora", "ollama"),
    "license": ("gguf", "gguf-lora", "ollama"),
}


def export(options: argparse.Namespace) -> int:
    """Writes the export; the exit code.

    Raises:
        InputError: an option or a file is wrong, a package is missing, or the export differs from the live model.
    """
    _check(options)
    from medqlora.artifacts.output import claimed

    out = Path(options.out).expanduser()
    with claimed(out):
        return _export_folder(options, out) if options.to == "vllm" else _export_gguf(options, out)


def _export_gguf(options: argparse.Namespace, out: Path) -> int:
    """Writes a GGUF file or Ollama's folder; the exit code. Raises InputError where it differs."""
    from medqlora.artifacts.exports.gguf_export import ExportRequest, GGUFExport
    from medqlora.inference.loading import pick_device

    base_gguf = None if options.base_gguf is None else Path(options.base_gguf).expanduser()
    with phase("Reading the adapter and its base"):
        made = GGUFExport(
            ExportRequest(
                options.to,
                options.adapter,
                out,
                options.type or "f16",
                options.base,
                base_gguf,
                options.pre_tokenizer,
                options.license,
                pick_device(options.device),
                options.verify == "true",
            )
        )
    print(f"Exporting {made.merge.adapter} with {base_words(made.merge.live.name)}", flush=True)
    try:
        report = made.finish(_written(made, options))
    except InputError:
        made.discard()
        raise
    except OSError as error:
        made.discard()
        # numpy's writes name no reason
        if disk_full(error) or "requested and" in str(error):
            raise _no_room(out) from error
        raise
    print(f"Exported: {out}\nReport:   {report}", flush=True)
    if made.merge.live.vision:
        model = out if made.staging.is_file else out / made.staging.gguf.name
        beside = model.with_name(made.projector.name)
        if made.known_fault:
            print(f"Note: {made.known_fault}", flush=True)
        print(f"Images:   {beside}\nRun it:\n  llama-server -m {model} --mmproj {beside}", flush=True)
    if options.to == "ollama":
        print(f"Run it:\n  ollama create {out.name} -f {out / 'Modelfile'}", flush=True)
    return 0


def _export_folder(options: argparse.Namespace, out: Path) -> int:
    """Writes the folder for vLLM; the exit code. Raises InputError where it differs from the live model."""
    from medqlora.artifacts.exports.vllm import FolderExport, FolderRequest
    from medqlora.inference.loading import pick_device

    made = FolderExport(FolderRequest(options.adapter, out, options.base, pick_device(options.device)))
    try:
        made.write()
        verification, why = _scored(made, options)
        report = made.finish(verification, why)
    except OSError as error:
        made.discard()
        if disk_full(error) or "No space left" in str(error):  # copytree's error has no number
            raise _no_room(out) from error
        raise
    except BaseException:
        made.discard()
        raise
    if why:
        print(f"Not verified: {why}", flush=True)
    print(f"Exported: {out}\nReport:   {report}\nServe it:\n  {made.command}", flush=True)
    return 0


def _scored(made: "FolderExport", options: argparse.Namespace) -> "tuple[Verification | None, str | None]":
    """The comparison, or why there is none. Raises InputError where the folder differs."""
    from medqlora.commands.progress_lines import ProgressLines
    from medqlora.evaluation.verification import limits

    if options.verify == "false":
        return None, "--verify false left the comparison out"
    try:
        questions = questions_of(options, made.record, made.adapter)
    except InputError as error:
        if options.questions:
            raise
        return None, str(error)  # an adapter of another project has no questions of its own
    try:
        accepted = limits(made.lost_bits, options.tolerance)
        checked = made.verify(questions, accepted, ProgressLines().update)
    except InputError as error:
        words = str(error).replace("--model.backend.base", "--base")
        raise InputError(f"{words}; or export without the comparison: --verify false") from error
    print("\n".join(checked.lines()), flush=True)
    if checked.faults:
        raise InputError(
            f"--out {options.out}: not written, the adapter on '{made.base}' differs from the live model: "
            f"{'; '.join(checked.faults)}: serve the merged model instead (`medqlora merge`), or accept it with "
            "--tolerance"
        )
    return checked, None


def _no_room(out: Path) -> InputError:
    return InputError(
        f"--out {out}: the disk is full: nothing was left there; free some space, or name another disk"
    )


def _written(made: "GGUFExport", options: argparse.Namespace) -> "Checked | None":
    """Writes and compares. Raises InputError where the export differs."""
    from medqlora.commands.progress_lines import ProgressLines
    from medqlora.evaluation.verification import limits

    questions = questions_of(options, made.merge.record, made.merge.adapter)
    progress = ProgressLines().update
    made.write(progress)
    if options.verify == "false":
        return None
    bits = 16 if options.to == "gguf-lora" else bits_of(made.request.kind)
    checked = made.verify(questions, limits(bits, options.tolerance), progress)
    print("\n".join(checked.verification.lines()), flush=True)
    if checked.faults:
        fix = "accept it with --tolerance"
        if checked.token_faults:
            fix = "no --tolerance accepts this; --verify false writes the file without the comparison"
        elif options.to == "gguf-lora" and options.base_gguf:
            fix = (
                "the base GGUF is not the base model that the adapter was trained on: export --to gguf, or "
                + fix
            )
        elif bits < 16:
            fix = "use --type f16, or " + fix
        if made.known_fault:
            fix = f"{made.known_fault}: for a version without this fault, write the file with --verify false"
        raise InputError(
            f"--out {options.out}: not written, llama.cpp differs from the live model: "
            f"{'; '.join(checked.faults)}: {fix}"
        )
    print(f"Token ids: equal in {checked.prompts} prompts", flush=True)
    return checked


def _check(options: argparse.Namespace) -> None:
    if options.out is None:
        raise InputError(f"--out: --to {options.to} needs it: name a folder")
    if options.ckpt_path is not None:
        raise InputError(f"--ckpt_path: --to {options.to} takes an adapter's folder: pass --adapter DIR")
    for name, formats in _OF_ONE_FORMAT.items():
        if getattr(options, name) is not None and options.to not in formats:
            raise InputError(f"--{name}: --to {options.to} does not use it: leave it out")
    if options.type is not None and options.to in ("gguf-lora", "vllm"):
        raise InputError(f"--type {options.type}: --to {options.to} has one type alone: leave it out")
    if options.base_gguf is not None and not Path(options.base_gguf).expanduser().is_file():
        raise InputError(f"--base_gguf: there is no file '{options.base_gguf}': name the base model's GGUF")
    options.adapter = adapter_or_newest(options.adapter, options.logs)
    check_verification(options)
