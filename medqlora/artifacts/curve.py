"""TensorBoard's files at a checkpoint: a resumed run continues the curve exactly where the checkpoint was.

TensorBoard's own way, a writer's `purge_step`, drops everything from a step on. It would also drop what the validation
before the checkpoint logged under the checkpoint's step, and that is not logged again.
"""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from medqlora.artifacts.run_folder import RunFolder
from medqlora.utils.files import flush
from medqlora.utils.manifests import plain_name


def positions(folders: Iterable[Path]) -> dict[str, int]:
    """Flushes TensorBoard's files in the folders to the disk; their names and sizes in bytes.

    Raises:
        OSError: a file can't be flushed.
    """
    sizes: dict[str, int] = {}
    for folder in folders:
        for file in RunFolder(folder).events():
            flush(file)
            sizes[file.name] = file.stat().st_size
    return sizes


def read_curves(run: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of the training loss and of every validation score; empty where no file can be read.

    Of a long run at most 2,000 points a curve, drawn by TensorBoard's own reader.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    if not RunFolder(run).events():
        return {}
    events = EventAccumulator(str(run), size_guidance={"scalars": 2000})
    try:
        events.Reload()
    except (OSError, ValueError):  # a report stands without its curves
        return {}
    names = [tag for tag in events.Tags()["scalars"] if tag == "train/loss" or tag.startswith("val/")]
    points = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in names}
    return {tag: [point for point in curve if math.isfinite(point[1])] for tag, curve in points.items()}


def cut(run: Path, sizes: Mapping[str, int]) -> None:
    """Removes what was logged after the checkpoint: those steps are run again.

    Args:
        run: the folder with TensorBoard's files.
        sizes: as `positions` gave them when the checkpoint was written.
    """
    for file in RunFolder(run).events():
        if file.name not in sizes:
            file.unlink()
        elif plain_name(file.name) and file.stat().st_size > sizes[file.name] >= 0:
            with file.open("r+b") as stream:
                stream.truncate(sizes[file.name])
