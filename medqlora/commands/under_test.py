"""The weights that `validate`, `test` and `predict` ask: a checkpoint's, an adapter's, or the bare base's."""

import json
from pathlib import Path
from typing import Any

from medqlora.artifacts.runs import finished_adapters
from medqlora.commands.given_checkpoint import GivenCheckpoint
from medqlora.data import Source
from medqlora.errors import InputError
from medqlora.models.adapters import RECORD_FILE, check_adapter_base, find_adapter, read_adapter
from medqlora.module import QLoRAModule
from medqlora.utils.console import say


class ChosenWeights:
    """What is asked, and what it says of itself.

    Args:
        module: gets the weights' place.
        prompt: the name of the prompt that questions are put with.
        source: where the questions come from; None for a file of questions, which is of no data set.
        given: `--ckpt_path`.
        logs: where the runs are.
    """

    def __init__(
        self,
        module: QLoRAModule,
        prompt: str,
        given: GivenCheckpoint,
        logs: Path,
        source: Source | None = None,
    ) -> None:
        self.module = module
        self.prompt = prompt
        self.source = source
        self.given = given
        self.logs = logs

    def choose(self) -> None:
        """`--ckpt_path`, `--model.adapter`, or the newest finished run's on this base and data; says which.

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
            adapter, remark = find_adapter(adapter)
            self.module.adapter = adapter
            check_adapter_base(adapter, backend.base, backend.identity())
            say(f"Evaluating the adapter {adapter}")
            if remark:
                say(remark)
        else:
            self._take_newest()
        if self.module.adapter not in (None, "none"):
            record: dict[str, Any] = read_adapter(self.module.adapter)
            trained_with = record.get("prompt", {}).get("name")
            if trained_with not in (None, self.prompt):
                say(f"Note: trained with the prompt '{trained_with}', asked with '{self.prompt}'")

    def _take_newest(self) -> None:
        """The newest finished run's adapter of the data that is asked; without one, the newest of any data, with a
        warning.

        Raises:
            InputError: no run on this base has finished.
        """
        backend = self.module.backend
        there = finished_adapters(self.logs, backend.identity())
        if not there:
            raise InputError(
                f"--model.adapter: {self.logs} holds no finished run on the base '{backend.base}': train one "
                "with `medqlora fit`, name an adapter's folder, or pass 'none' for the bare base"
            )
        source = self.source
        same = [one for one in there if source is None or source.same_data(_trained_on(one))]
        found = (same or there)[0]
        self.module.adapter = str(found)
        say(f"Evaluating the newest finished run's adapter, {found}")
        if source is None:
            return
        if not same:
            say(
                f"WARNING: it was trained on other data ({_data_name(found)}), and no finished run on this base under "
                f"{self.logs} was trained on {source.name}'s that is asked: name an adapter with --model.adapter, or "
                "train one"
            )
        elif found != there[0]:
            say(f"Note: {there[0]} is newer, but was trained on other data ({_data_name(there[0])})")


def _trained_on(adapter: Path) -> dict[str, Any]:
    """What an adapter's record says of its data; {} where it says nothing. The weights are not looked at."""
    try:
        data = json.loads((adapter / RECORD_FILE).read_text(encoding="utf-8"))["data"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def _data_name(adapter: Path) -> str:
    """The data set in words: its source, and the training file where it has one."""
    data = _trained_on(adapter)
    names = [str(data[key]) for key in ("name", "train") if data.get(key)]
    return ", ".join(names) or "its record does not say which"
