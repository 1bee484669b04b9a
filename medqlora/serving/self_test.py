"""The self-test: a process is ready once a fixed question has its stored log-probabilities.

The first start of a model stores them in the cache folder; every later process has to give the same. So a damaged
weight, another base model under the same name, or a library that computes otherwise is found before a client gets an
answer.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from medqlora.serving.engine import BASE
from medqlora.utils.cache import cache_folder
from medqlora.utils.digests import file_digest
from medqlora.utils.files import write_text

#: nats by which a log-probability may differ: the rounding of 16-bit products
TOLERANCE = 0.05
#: another one computes the log-probabilities in another way, and rounds otherwise
_SCORER = 2
_WEIGHTS = "adapter_model.safetensors"


class SelfTest:
    """Compares self-tests with the stored ones.

    Args:
        setting: differs between any two settings whose log-probabilities may differ: base model, engine, device.
        adapters: name → folder.
        folder: where they are stored; None for the cache folder.
    """

    def __init__(self, setting: str, adapters: Mapping[str, str], folder: Path | None = None) -> None:
        self._adapters: dict[str, str] = {BASE: ""}
        for name, adapter in adapters.items():
            self.add(name, adapter)
        # the base model is asked with the prompt and the labels of the first adapter
        self._adapters[BASE] = next((self._adapters[name] for name in adapters), "")
        name = hashlib.sha256(f"{_SCORER} {setting}".encode()).hexdigest()[:32]
        try:
            self._file: Path | None = (folder or cache_folder("serving")) / f"self-test-{name}.json"
        except OSError:  # no cache folder: processes are compared with the first of this start
            self._file = None
        self._known = self._stored()

    def add(self, name: str, folder: str) -> None:
        """An adapter is served under this name from now on."""
        file = Path(folder).expanduser() / _WEIGHTS
        self._adapters[name] = file_digest(file)["sha256"] if file.is_file() else folder

    def checked(self, found: Mapping[str, Sequence[float]]) -> str | None:
        """Why these log-probabilities are not the stored ones, as a sentence; None where they are, or are new."""
        new = False
        for model, values in found.items():
            if not all(map(math.isfinite, values)):
                return f"the self-test of {model} gave numbers that are not finite"
            key = f"{'base' if model == BASE else 'adapter'} {self._adapters.get(model, model)}"
            known = self._known.get(key)
            if known is None:
                self._known[key] = tuple(values)
                new = True
                continue
            if len(known) != len(values):
                return f"the self-test of {model} scored {len(values)} labels, stored are {len(known)}"
            largest = max((abs(one - two) for one, two in zip(known, values, strict=True)), default=0.0)
            if largest > TOLERANCE:
                return (
                    f"the self-test of {model} differs from the stored one by {largest:.3g} nats: weights or libraries "
                    f"have changed; if that is meant, remove {self._file}"
                )
        if new:
            self._store()
        return None

    def _stored(self) -> dict[str, tuple[float, ...]]:
        if self._file is None:
            return {}
        try:
            stored = json.loads(self._file.read_text("utf-8"))
            return {str(name): tuple(map(float, values)) for name, values in stored.items()}
        except (OSError, ValueError, TypeError, AttributeError):  # missing, or not ours: it is written anew
            return {}

    def _store(self) -> None:
        if self._file is not None:
            try:
                write_text(self._file, json.dumps(self._known) + "\n", durable=False)
            except OSError:  # a full disk keeps nobody from answering
                self._file = None
