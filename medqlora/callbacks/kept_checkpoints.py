"""The state of AdapterCheckpoint in a checkpoint, as files of the folder that the run goes on in."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple, SupportsFloat, cast

from medqlora.artifacts.checkpoint_files import problem

_PATHS = ("best_model_path", "kth_best_model_path", "last_model_path")


class Restored(NamedTuple):
    """What a checkpoint says of the kept checkpoints.

    Attributes:
        state: for Lightning's `ModelCheckpoint`.
        losses: val/loss of each kept checkpoint, by its path.
        missing: where the folder has no undamaged file of the best checkpoint, a sentence of it; None otherwise.
    """

    state: dict[str, object]
    losses: dict[str, float]
    missing: str | None


def restored(state: Mapping[str, object], folder: Path) -> Restored:
    """The state with the paths of the undamaged files in `folder`, which may have been moved.

    A path in a checkpoint is not followed out of the folder: its file would be removed one day. Without the best
    checkpoint's file there is no best score: its weights are gone, and the next validation's are the best.
    """

    @cache  # a file is read once
    def damage(file: str) -> str | None:
        return problem(folder / file)

    def here(path: object) -> str:
        file = Path(str(path)).name
        return str(folder / file) if path and damage(file) is None else ""

    def kept(key: str) -> dict[str, object]:
        values = cast("dict[str, object]", state.get(key, {}))
        return {here(path): value for path, value in values.items() if here(path)}

    paths = {name: here(state.get(name) or "") for name in _PATHS}
    known = {**state, **paths, "best_k_models": kept("best_k_models")}
    missing = None
    if not paths["best_model_path"]:
        known["best_model_score"] = None
        if best := Path(str(state.get("best_model_path") or "")).name:
            missing = f"{best}, the best checkpoint so far, can't be taken ({damage(best)})"
    losses = kept("losses").items()
    return Restored(
        known, {path: float(loss) for path, loss in losses if isinstance(loss, SupportsFloat)}, missing
    )
