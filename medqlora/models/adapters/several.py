"""Several adapters on one loaded base model, by PEFT's own means."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

from torch import nn

from medqlora.errors import InputError
from medqlora.models.adapters.base import check_adapter_base
from medqlora.models.adapters.comparison import ADAPTER_NAME
from medqlora.models.adapters.fit import load_adapter
from medqlora.models.adapters.folder import adapter_config, read_adapter
from medqlora.models.backend import Backend
from medqlora.models.finite import is_finite
from medqlora.models.layers import last_part
from medqlora.models.targets import SEVEN_PROJECTIONS

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

#: PEFT's name of the adapter that the model was loaded with
FIRST = ADAPTER_NAME
#: PEFT's name of a row without an adapter
NO_ADAPTER = "__base__"
_NEEDED = "replaces weights of the base model, which the other adapters need as they are"


def _shared_changes(config: Mapping[str, object]) -> list[str]:
    """What an adapter's configuration changes in the base model that PEFT can't undo for other adapters."""
    changes = ["trainable_token_indices"] if config.get("trainable_token_indices") else []
    return changes if config.get("bias", "none") == "none" else [*changes, "bias"]


def is_plain(config: Mapping[str, object]) -> bool:
    """Whether an adapter is A and B alone, by its configuration: the decode engine adds up those."""
    return not any(
        config.get(key) for key in ("use_dora", "lora_bias", "alora_invocation_tokens", "arrow_config")
    )


class Adapters:
    """The adapters of one model.

    Args:
        model: PEFT's model, or a base model.
        backend: that loaded it.
    """

    def __init__(self, model: nn.Module, backend: Backend) -> None:
        self.model = model
        self._backend = backend
        self._count = 0
        self._configs: dict[str, dict[str, object]] = {}
        #: adapters that were looked at, and `all_plain` for them
        self._looked_at: tuple[tuple[str, ...], bool] = ((), True)

    def add(self, folder: str) -> str:
        """Loads a further adapter; PEFT's name for it.

        Raises:
            InputError: it belongs to another base model, doesn't fit, or changes weights of the base model itself.
        """
        read_adapter(folder, "--adapter")
        check_adapter_base(folder, self._backend.base, self._backend.identity())
        self._backend.check_adapter(folder, "--adapter")
        config = adapter_config(folder)
        changes = [*_shared_changes(config), *(["modules_to_save"] if config.get("modules_to_save") else [])]
        if changes:
            raise InputError(f"--adapter {folder}: its {changes[0]} {_NEEDED}: use it alone")
        if FIRST in self._held and (changes := _shared_changes(self._config(FIRST))):
            raise InputError(
                f"--adapter {folder}: the {changes[0]} of the adapter that was loaded first {_NEEDED}: use that alone"
            )
        if not hasattr(self.model, "peft_config"):
            base = cast("PreTrainedModel", self.model)
            self.model = load_adapter(base, folder, self._backend.base, option="--adapter").eval()
            self._configs[FIRST] = config
            return FIRST
        self._count += 1
        name = f"adapter_{self._count}"
        peft = cast("PeftModel", self.model)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of shapes, which `check_adapter` has compared
            peft.load_adapter(folder, name, is_trainable=False)
        weights = {key: value for key, value in peft.named_parameters() if f".{name}." in f"{key}."}
        if not weights or not all(map(is_finite, weights.values())):
            peft.delete_adapter(name)
            raise InputError(
                f"--adapter {folder}: a tensor holds NaN or infinite values: use another checkpoint's adapter"
            )
        peft.eval()
        self._configs[name] = config
        return name

    def remove(self, name: str) -> None:
        """Frees an adapter."""
        peft = cast("PeftModel", self.model)
        peft.set_adapter(FIRST)
        peft.delete_adapter(name)
        self._configs.pop(name, None)

    def mixes(self, name: str) -> bool:
        """Whether PEFT can compute its rows beside those of other adapters in one batch: it can't with DoRA."""
        if name == NO_ADAPTER:
            return hasattr(self.model, "peft_config")
        return not self._config(name).get("use_dora")

    @property
    def all_plain(self) -> bool:
        """Whether the decode engine can run rows of all adapters."""
        names = tuple(self._held)
        if names != self._looked_at[0]:
            plain = all(is_plain(self._config(name)) for name in names)
            self._looked_at = names, plain and not self._adapts_others()
        return self._looked_at[1]

    def _adapts_others(self) -> bool:
        """Whether an adapter has weights beside layers that the decode engine reads them from, as the head."""
        owners = (
            name.partition(".lora_")[0] for name, _ in self.model.named_parameters() if ".lora_" in name
        )
        return any(last_part(owner) not in SEVEN_PROJECTIONS for owner in owners)

    @contextmanager
    def active(self, name: str) -> Iterator[None]:
        """A block in which all rows go through one adapter, or through none."""
        if not hasattr(self.model, "peft_config"):
            yield
            return
        peft = cast("PeftModel", self.model)
        if name == NO_ADAPTER:
            with peft.disable_adapter():
                yield
            return
        if peft.active_adapter != name:
            peft.set_adapter(name)
        yield

    @property
    def _held(self) -> Mapping[str, object]:
        """PEFT's configurations of the adapters that the model holds, by name."""
        held: Mapping[str, object] = getattr(self.model, "peft_config", {})
        return held

    def _config(self, name: str) -> Mapping[str, object]:
        return self._configs.get(name) or vars(self._held[name])
