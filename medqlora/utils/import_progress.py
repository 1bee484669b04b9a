"""Shows that a large package is being imported, which takes seconds and says nothing by itself."""

import importlib.machinery
import sys
import types
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder

from medqlora.utils.progress import phase

#: package → what its users call it; each takes a second or more
_LARGE = {
    "torch": "PyTorch",
    "transformers": "transformers",
    "lightning": "Lightning",
    "torchmetrics": "torchmetrics",
    "peft": "PEFT",
    "bitsandbytes": "bitsandbytes",
    "unsloth": "Unsloth",
    "datasets": "datasets",
    "matplotlib": "matplotlib",
    "scipy": "SciPy",
    "sklearn": "scikit-learn",
    "tensorboard": "TensorBoard",
    "trl": "TRL",
}


def show_imports() -> None:
    """From now on shows the import of each large package, until it is complete."""
    if not any(isinstance(finder, _Watch) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Watch())


class _Watch(MetaPathFinder):
    """Finds what Python's own path finder finds, with a loader that shows its work."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in _LARGE:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Shown(spec.loader, _LARGE[fullname])
        return spec


class _Shown(Loader):
    """A loader whose module is executed under a progress line; everything else is the loader's own."""

    def __init__(self, loader: Loader, name: str) -> None:
        self._loader = loader
        self._name = name

    def __getattr__(self, name: str) -> object:
        return getattr(self._loader, name)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: types.ModuleType) -> None:
        # as it was: libraries look at a module's loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        with phase(f"Loading {self._name}"):
            self._loader.exec_module(module)
