"""The weights that `validate`, `test` and `predict` ask: a checkpoint's, an adapter's, or the bare base's."""

from pathlib import Path

from medqlora.commands.given_checkpoint import GivenCheckpoint
from medqlora.console import say
from medqlora.errors import InputError
from medqlora.models.adapters import check_adapter_base, read_adapter
from medqlora.module import QLoRAModule
from medqlora.runs import newest_adapter


class UnderTest:
    """What is asked, and what it says of itself.

    Args:
        module: gets the weights' place.
        prompt: the name of the prompt that questions are put with.
        given: `--ckpt_path`.
        logs: where the runs are.
    """

    def __init__(self, module: QLoRAModule, prompt: str, given: GivenCheckpoint, logs: Path) -> None:
        self.module = module
        self.prompt = prompt
        self.given = given
        self.logs = logs

    def choose(self) -> None:
        """`--ckpt_path`, `--model.adapter`, or the newest finished run's on this base; says which.

        Raises:
            InputError: there is none, it is of another base, or two are named.
        """
        backend, adapter = self.module.backend, self.module.adapter
        if self.given.path is not None:
            if adapter is not None:
                raise InputError(f"--model.adapter {adapter} and --ckpt_path are both given: leave one out")
            self.module.checkpoint = str(self.given.path)
            say(f"Evaluating the checkpoint {self.module.checkpoint}")
        elif adapter == "none":
            say(f"Evaluating the bare base {backend.base}")
        elif adapter is not None:
            check_adapter_base(adapter, backend.base, backend.identity())
            say(f"Evaluating the adapter {adapter}")
        else:
            found = newest_adapter(self.logs, backend.identity())
            if found is None:
                raise InputError(
                    f"--model.adapter: {self.logs} holds no finished run on the base '{backend.base}': train one "
                    "with `medqlora fit`, name an adapter's folder, or pass 'none' for the bare base"
                )
            self.module.adapter = str(found)
            say(f"Evaluating the newest finished run's adapter, {found}")
        if self.module.adapter not in (None, "none"):
            trained_with = read_adapter(self.module.adapter).get("prompt", {}).get("name")
            if trained_with not in (None, self.prompt):
                say(f"Note: trained with the prompt '{trained_with}', asked with '{self.prompt}'")
