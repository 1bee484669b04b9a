"""Base models that the fused decoder's tests share."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from fused_models import LAYERS, VARIANTS
from tiny import build_base

if TYPE_CHECKING:
    from triton.runtime.interpreter import _LangPatchScope


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a variant's base model, built at its first use."""
    root = tmp_path_factory.mktemp("fused")

    def folder(name: str) -> Path:
        if not (root / name).exists():
            family, changes = VARIANTS[name]
            build_base(root / name, family, layers=LAYERS, **changes)
        return root / name

    return folder


@pytest.fixture
def loops_of_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton 3.6's interpreter makes bounds of loops from arrays in a way that newer releases of NumPy refuse."""
    if torch.cuda.is_available():
        return
    from triton.runtime import interpreter

    patch: Callable[..., None] = interpreter._patch_lang_tensor

    def patched(tensor: type, scope: "_LangPatchScope") -> None:
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    monkeypatch.setattr(interpreter, "_patch_lang_tensor", patched)
