"""The choice of the weights that `validate`, `test` and `predict` evaluate."""

import json
from collections.abc import Mapping
from pathlib import Path

from medqlora.artifacts.runs import finished_adapters
from medqlora.commands.given_checkpoint import GivenCheckpoint
from medqlora.data import Source
from medqlora.errors import InputError
from medqlora.models.adapters import RECORD_FILE, check_adapter_base, find_adapter, read_adapter
from medqlora.models.backend import Backend
from medqlora.module import QLoRAModule
from medqlora.utils.cache import quoted_base
from medqlora.utils.console import say


def choose_weights(
    module: QLoRAModule, prompt: str, given: GivenCheckpoint, logs: Path, source: Source | None = None
) -> None:
    """Takes `--ckpt_path`, `--model.adapter`, or the newest finished run on this base model and data; says which.

    Args:
        module: its `checkpoint` or `adapter` is set.
        prompt: the name of the prompt for the questions.
        given: `--ckpt_path`.
        logs: the log folder.
        source: the questions' data set; None for a file of questions.

    Raises:
        InputError: there are no weights, they have another base model, or two are named.
    """
    backend, adapter = module.backend, module.adapter
    if given.path is not None:
        if adapter is not None:
            raise InputError(f"--model.adapter {adapter} and --ckpt_path are both given: leave one out")
        module.checkpoint = str(given.path)
        say(f"Evaluating the checkpoint {module.checkpoint}")
    elif adapter == "none":
        say(f"Evaluating the bare base {backend.base}")
    elif adapter is not None:
        module.adapter, remark = find_adapter(adapter)
        check_adapter_base(module.adapter, backend.base, backend.identity())
        say(f"Evaluating the adapter {module.adapter}")
        if remark:
            say(remark)
    else:
        module.adapter = str(_newest_adapter(backend, logs, source))
    if module.adapter not in (None, "none"):
        recorded = read_adapter(str(module.adapter)).get("prompt")
        trained_with = recorded.get("name") if isinstance(recorded, dict) else None
        if trained_with not in (None, prompt):
            say(f"Note: trained with the prompt '{trained_with}', asked with '{prompt}'")


def _newest_adapter(backend: Backend, logs: Path, source: Source | None) -> Path:
    """The newest finished run's adapter on the questions' data; without one, that on any data, with a warning.

    Raises:
        InputError: no run on this base model has finished.
    """
    adapters = finished_adapters(logs, backend.identity())
    if not adapters:
        raise InputError(
            f"--model.adapter: {logs} holds no finished run on {quoted_base(backend.base)}: train one "
            "with `medqlora fit`, name an adapter's folder, or pass 'none' for the bare base"
        )
    same = [path for path in adapters if source is None or source.same_data(_trained_on(path))]
    newest, chosen = adapters[0], (same or adapters)[0]
    say(f"Evaluating the newest finished run's adapter, {chosen}")
    if source is not None and not same:
        say(
            f"WARNING: it was trained on other data ({_data_name(chosen)}), and no finished run on this base under "
            f"{logs} was trained on {source.name}'s that is asked: name an adapter with --model.adapter, or "
            "train one"
        )
    elif chosen != newest:
        say(f"Note: {newest} is newer, but was trained on other data ({_data_name(newest)})")
    return chosen


def _trained_on(adapter: Path) -> Mapping[str, object]:
    """The data of an adapter's record; {} where it has none. The weights are not read."""
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
