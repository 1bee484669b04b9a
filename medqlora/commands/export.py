"""`medqlora export`: a run's adapter for other programs; without --to, PEFT's folder from a checkpoint."""

import argparse
from pathlib import Path

from medqlora.artifacts.run_folder import RunFolder
from medqlora.commands.arguments import Parser
from medqlora.commands.export_formats import export
from medqlora.commands.newest_run import add_logs, run_or_newest
from medqlora.commands.registry import Command
from medqlora.commands.unsloth_first import import_unsloth_if_named
from medqlora.commands.verification_options import add_verification
from medqlora.config.exports import FILE_TYPES, FORMATS, PRE_TOKENIZERS
from medqlora.config.ranges import check_checkpoint
from medqlora.errors import InputError
from medqlora.utils.cache import why_not_writable

COMMAND = Command("export", "a run's adapter for other programs: PEFT, GGUF, Ollama, vLLM", rank=60)

_EXAMPLES = """examples:
  medqlora export                                        the newest run's best checkpoint as adapter/
  medqlora export --ckpt_path lightning_logs/version_0/checkpoints/last.ckpt
  medqlora export --to gguf --out model.gguf --type q8_0     of the newest run's adapter
  medqlora export --to ollama --adapter lightning_logs/version_0 --out ollama

--to gguf, gguf-lora and ollama are compared with the live model, in llama.cpp, on the adapter's validation questions.
Where an answer changes, the command fails and leaves nothing.

--to peft: options are read from the run's own config.yaml, and its data from where it names them: the adapter says what
it was trained on. It becomes adapter/ in the run's folder, in place of the one that is there.
"""


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    made = Parser("export", "Writes a run's adapter for other programs.", _EXAMPLES)
    made.add_argument(
        "--to",
        choices=FORMATS,
        default="peft",
        help="peft: the run's adapter folder from a checkpoint; gguf: the merged model; gguf-lora: the adapter alone; "
        "ollama: a folder with Modelfile; vllm: a checked adapter folder (default: %(default)s)",
    )
    made.add_argument(
        "--ckpt_path",
        metavar="FILE|RUN",
        help="with --to peft: a .ckpt of a run's checkpoints/ folder, or the run's folder for its best (default: the "
        "newest run's)",
    )
    made.add_argument(
        "--adapter",
        metavar="DIR",
        help="adapter folder, or the folder of its run (default: the newest finished run's)",
    )
    add_logs(made)
    made.add_argument("--out", metavar="DIR|FILE", help="a new .gguf file, or a new folder")
    made.add_argument(
        "--base", metavar="NAME|DIR", help="base model, where it differs from the adapter's record"
    )
    made.add_argument("--type", choices=FILE_TYPES, help="GGUF type of the matrices (default: f16)")
    made.add_argument(
        "--base_gguf", metavar="FILE", help="with --to gguf-lora: compare on this GGUF of the base model"
    )
    made.add_argument(
        "--pre_tokenizer",
        choices=PRE_TOKENIZERS,
        help="llama.cpp's name for how the tokenizer splits text, where the tokenizer does not tell it",
    )
    made.add_argument(
        "--license", metavar="ID", help="GGUF: the base model's licence, where its files do not tell it"
    )
    add_verification(made)
    return made


def run(command: str, words: list[str]) -> int:
    """Raises InputError for a checkpoint that is missing, is damaged, or belongs to no run's folder."""
    options = parser().parse_args(words)
    if options.to != "peft":
        return export(options)
    given = None if options.ckpt_path is None else Path(options.ckpt_path).expanduser()
    if given is None or given.is_dir():
        given = _best_of(run_or_newest(given, options.logs))
    return _export_checkpoint(given)


def _best_of(run: RunFolder) -> Path:
    """The run's best checkpoint. Raises InputError."""
    if not any(run.checkpoints.glob("*.ckpt")):
        raise InputError(
            f"--ckpt_path: {run.path} holds no checkpoint: name a .ckpt of a run's checkpoints/ folder, or another run"
        )
    from medqlora.commands.given_checkpoint import best_checkpoint

    best = best_checkpoint(run)
    if best is None:
        raise InputError(f"--ckpt_path: {run.checkpoints} holds no whole checkpoint: name another run")
    print(f"Exporting the checkpoint {best}", flush=True)
    return best


def _export_checkpoint(file: Path) -> int:
    folder = _run_of(file)
    options = ["fit", f"--config={folder.config}", f"--ckpt_path={file}"]
    import_unsloth_if_named(options)
    from medqlora.artifacts.adapter_folder import write_adapter
    from medqlora.artifacts.checkpoint_files import read_checkpoint
    from medqlora.callbacks.adapter_contents import ChosenBy, adapter_contents
    from medqlora.commands.run import Run

    exported = Run(options, "export")
    exported.build()
    exported.prepare()
    exported.compare_with_checkpoint()
    saved = read_checkpoint(file)
    if "export" not in saved:
        raise InputError(
            f"--ckpt_path: '{file}' is older than `medqlora export`, and says too little for it: go on with "
            "its run (medqlora fit --ckpt_path), which exports at its end"
        )
    contents = adapter_contents(
        exported.trainer, exported.model, exported.datamodule, saved, ChosenBy.of_checkpoint(saved)
    )
    write_adapter(contents, folder.adapter)
    print(f"Adapter: {folder.adapter}", flush=True)
    return 0


def _run_of(file: Path) -> RunFolder:
    """The run's folder, where the adapter is written. Raises InputError."""
    check_checkpoint(file)
    folder = RunFolder.of_checkpoint(file)
    if folder is None or not folder.config.is_file():
        raise InputError(
            f"--ckpt_path: '{file}' does not lie in the checkpoints/ of a run's folder with its config.yaml: give "
            "one that does"
        )
    if why := why_not_writable(folder.path):
        raise InputError(
            f"--ckpt_path: the adapter would be written into {folder.path}, which can't be written ({why}): copy the "
            "run to where you can write"
        )
    return folder
