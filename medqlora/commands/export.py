"""`medqlora export`: a checkpoint's weights as an adapter folder again; the base's weights are not loaded."""

import argparse
from pathlib import Path
from typing import Any

from medqlora.commands.arguments import Parser
from medqlora.commands.registry import Command
from medqlora.commands.unsloth_first import import_unsloth_if_named
from medqlora.config.check import check_checkpoint
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
    """Raises InputError for a checkpoint that isn't there, is damaged, or is of no run's folder."""
    file = Path(parser().parse_args(words).ckpt_path).expanduser()
    check_checkpoint(file)
    folder = file.parent.parent
    config = folder / "config.yaml"
    if file.parent.name != "checkpoints" or not config.is_file():
        raise InputError(
            f"--ckpt_path: '{file}' does not lie in the checkpoints/ of a run's folder with its config.yaml: give "
            "one that does"
        )
    if why := why_not_writable(folder):
        raise InputError(
            f"--ckpt_path: the adapter would be written into {folder}, which can't be written ({why}): copy the run to "
            "where you can write"
        )
    options = ["fit", f"--config={config}", f"--ckpt_path={file}"]
    import_unsloth_if_named(options)
    _exporting()(options, "export").execute()
    return 0


def _exporting() -> Any:
    from medqlora.artifacts.checkpoint import KEY, check_definition, definition
    from medqlora.artifacts.checkpoint_files import read_checkpoint
    from medqlora.callbacks import saver_of
    from medqlora.commands.run import Run
    from medqlora.utils.console import say

    class Exporting(Run):
        """Reads options and data as `fit` does, and exports in its place."""

        def resume(self) -> None:
            saved = self.given.saved
            assert saved is not None
            now = definition(self.model, self.datamodule, str(self.trainer.precision))
            check_definition(saved[KEY], now, anyway=False)

        def perform(self) -> None:
            file, run, saver = self.given.path, self.given.run, saver_of(self.trainer)
            assert file is not None
            assert run is not None
            whole = read_checkpoint(file)
            if "export" not in whole:
                raise InputError(
                    f"--ckpt_path: '{file}' is older than `medqlora export`, and says too little for it: go on with "
                    "its run (medqlora fit --ckpt_path), which exports at its end"
                )
            self.trainer.datamodule = self.datamodule  # type: ignore[attr-defined]
            self.model.model = SavedAdapter(whole["export"]["peft_config"])
            self.model.parameter_counts = tuple(whole["export"]["parameters"])
            states = [one for name, one in whole["callbacks"].items() if name.startswith("AdapterCheckpoint")]
            saver.best_model_score = states[0]["best_model_score"] if states else None
            saver.monitor = saver.monitor if self.datamodule.dev else None
            saver.export(self.model, run, file)
            say(f"Adapter: {saver.adapter_folder}")

        def finish(self) -> None: ...

    return Exporting


class SavedAdapter:
    """Stands for the PEFT model where an adapter is written: its configuration is all that it needs of that.

    Args:
        peft_config: LoraConfig's fields, as plain values.
    """

    def __init__(self, peft_config: dict[str, Any]) -> None:
        self.peft_config = peft_config

    def save_pretrained(
        self, folder: str, *, state_dict: dict[str, Any], save_embedding_layers: bool
    ) -> None:
        """Writes what PeftModel's own does: its names are those of the parameters without the adapter's."""
        from peft import LoraConfig
        from safetensors.torch import save_file

        assert not save_embedding_layers
        config = LoraConfig(**{**self.peft_config, "inference_mode": True})
        config.save_pretrained(folder)
        weights = {
            name.replace(".lora_magnitude_vector.default.weight", ".lora_magnitude_vector").replace(
                ".default.", "."
            ): value.contiguous()
            for name, value in state_dict.items()
        }
        save_file(weights, Path(folder) / "adapter_model.safetensors", metadata={"format": "pt"})
