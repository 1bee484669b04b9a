"""What Lightning 2.6 tells through no public name."""

import inspect
from typing import Any

from lightning.pytorch import Trainer


def checkpoint_to_restore() -> str | None:
    """The checkpoint that the running stage restores, resolved ("best" is a file by then); None without one.

    `trainer.ckpt_path` is still that of the stage before while `setup` runs: Lightning hands the new one from
    `Trainer._run` to its checkpoint connector after `configure_model`. Until then it is an argument of `_run`
    alone, which is read here.
    """
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code is Trainer._run.__code__:
            found = frame.f_locals["ckpt_path"]
            return None if found is None else str(found)
        frame = frame.f_back
    return None


def data_source(trainer: Any) -> object:
    """What the stage that the Trainer runs asks for its loaders: a datamodule, a module or a loader."""
    loops = {
        "fit": trainer.fit_loop,
        "validate": trainer.validate_loop,
        "test": trainer.test_loop,
        "predict": trainer.predict_loop,
    }
    return loops[str(trainer.state.fn.value)]._data_source.instance
