"""`medqlora export`: an adapter folder from a checkpoint, without the base model's weights."""

import argparse
from pathlib import Path

from medqlora.artifacts.run_folder import RunFolder
from medqlora.commands.arguments import Parser
from medqlora.commands.registry import Command
from medqlora.commands.unsloth_first import import_unsloth_if_named
from medqlora.config.ranges import check_checkpoint
from medqlora.errors import InputError
from medqlora.utils.cache import why_not_writable

COMMAND = Command("export", "the adapter folder of a run, written again from a checkpoint", rank=60)

_EXAMPLES = """examples:
  medqlora export --ckpt_path lightning_logs/version_0/checkpoints/last.ckpt

The options are read from the run's own config.yaml, and its data from where it names them: the adapter says what
it was trained on. It becomes adapter/ in the run's folder, in place of the one that is there.
"""


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    made = Parser("export", "Writes the adapter folder of a run from one of its checkpoints.", _EXAMPLES)
    made.add_argument(
        "--ckpt_path", required=True, metavar="FILE", help="a .ckpt of a run's checkpoints/ folder"
    )
    return made


def run(command: str, words: list[str]) -> int:
    """Raises InputError for a checkpoint that is missing, is damaged, or belongs to no run's folder."""
    file = Path(parser().parse_args(words).ckpt_path).expanduser()
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
