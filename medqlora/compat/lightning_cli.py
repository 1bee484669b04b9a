"""LightningCLI in stages: everything is built first, and the verb runs when it is asked for.

Lightning 2.6's `LightningCLI.__init__` parses, seeds, builds and runs in one go; its hooks between these are private.
"""

from typing import TYPE_CHECKING

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import LightningCLI

if TYPE_CHECKING:
    from jsonargparse import Namespace


class StagedCLI(LightningCLI):
    """LightningCLI that stops where the verb would begin.

    Tests: `tests/runs/test_configs.py` builds every shipped configuration with it, and nothing is written.
    """

    asked: str  # the verb; set before the constructor is called
    config: "Namespace"
    config_init: "Namespace"

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The asked verb alone: Lightning builds a parser for each of the four, which takes four times as long."""
        return {self.asked: super().subcommands()[self.asked]}

    def _parse_ckpt_path(self) -> None:
        """Lightning would overwrite options by those in the checkpoint: `config.yaml` is the record here."""

    def _set_seed(self) -> None:
        self.before_seed()
        super()._set_seed()

    def _run_subcommand(self, subcommand: str) -> None:
        """Lightning would run the verb at the end of the constructor; `run_verb` does it."""

    def _instantiate_trainer(self, config: dict[str, object], callbacks: list[Callback]) -> Trainer:
        """Lightning takes one progress bar: the user's own replaces this project's."""
        given = config.get("callbacks")
        if isinstance(given, list) and any(isinstance(callback, ProgressBar) for callback in given):
            callbacks = [callback for callback in callbacks if not isinstance(callback, ProgressBar)]
        return super()._instantiate_trainer(config, callbacks)

    def before_seed(self) -> None:
        """Called when the options are parsed, before anything else."""

    @property
    def verb(self) -> str:
        """fit, validate, test or predict."""
        return str(self.subcommand)

    def value(self, key: str) -> object:
        """An option of the verb, its classes instantiated; None where it has none."""
        return self._get(self.config_init, key)

    def option_names(self) -> list[str]:
        """Every option of the verb in Lightning's parser, as "model.lora.r"."""
        actions = self._subcommand_parsers[self.verb]._actions
        return [option.lstrip("-") for action in actions for option in action.option_strings]

    def default_of(self, name: str) -> object:
        """The default of an option in Lightning's parser."""
        return self._subcommand_parsers[self.verb].get_default(name)

    def run_verb(self, **changes: object) -> None:
        """Calls the Trainer's method with the options of the verb, some of them changed."""
        arguments = {**self._prepare_subcommand_kwargs(self.verb), **changes}
        getattr(self.trainer, self.verb)(**arguments)
