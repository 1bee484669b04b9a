"""Files from strangers that leave a mark when code in them is run."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

Refused = Callable[..., str]


def harmful(mark: Path) -> str:
    return (
        f"from pathlib import Path\nPath({str(mark)!r}).touch()\n"
        "class Config: pass\nclass Model: pass\nclass Tokenizer: pass\n"
    )


class Harm:
    """Pickled, it leaves the mark as soon as it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (Path.touch, (self.mark,))


def harmful_file(path: Path, kind: str, mark: Path) -> Path:
    """A checkpoint or weight file in one of the forms that torch reads."""
    content = {"global_step": 1, "state_dict": {}, "x": Harm(mark)}
    if kind == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    return path


def changed(file: Path, **fields: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def harmful_base(base: Path, folder: Path, mark: Path, **fields: Any) -> Path:
    """A base with a Python file of its own, that its configuration asks for."""
    shutil.copytree(base, folder)
    (folder / "stranger.py").write_text(harmful(mark), encoding="utf-8")
    names = {"AutoConfig": "stranger.Config", "AutoModelForCausalLM": "stranger.Model"}
    changed(folder / "config.json", auto_map=names, **fields)
    return folder


def makes_an_optimizer(params: Any) -> torch.optim.Optimizer:
    raise AssertionError("a function of a configuration was called")
