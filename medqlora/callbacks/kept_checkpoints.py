"""The state of AdapterCheckpoint in a checkpoint, as files of the folder that the run goes on in."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, SupportsFloat, cast

_PATHS = ("best_model_path", "kth_best_model_path", "last_model_path")


class Restored(NamedTuple):
    """What a checkpoint says of the kept checkpoints.

    Attributes:
        state: for Lightning's `ModelCheckpoint`.
        losses: val/loss of each kept checkpoint, by its path.
        missing: the best checkpoint's file name where the folder lacks that file; None otherwise.
    """

    state: dict[str, object]
    losses: dict[str, float]
    missing: str | None


def restored(state: Mapping[str, object], folder: Path) -> Restored:
    """The state with the paths of the files that are in `folder`, which may have been moved.

    A path in a checkpoint is not followed out of the folder: its file would be removed one day. Without the best
    checkpoint's file there is no best score: its weights are gone, and the next validation's are the best.
    """

    def here(path: object) -> str:
        inside = folder / Path(str(path)).name
        return str(inside) if path and inside.is_file() else ""

    def kept(key: str) -> dict[str, object]:
        values = cast("dict[str, object]", state.get(key, {}))
        return {here(path): value for path, value in values.items() if here(path)}

    paths = {name: here(state.get(name, "")) for name in _PATHS}
    known = {**state, **paths, "best_k_models": kept("best_k_models")}
    missing = None
    if not paths["best_model_path"]:
        known["best_model_score"] = None
        missing = Path(str(state.get("best_model_path") or "")).name or None
    losses = kept("losses").items()
    return Restored(
        known, {path: float(loss) for path, loss in losses if isinstance(loss, SupportsFloat)}, missing
    )
