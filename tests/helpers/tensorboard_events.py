"""What a run wrote for TensorBoard."""

from pathlib import Path


def logged(run_folder: Path, name: str) -> list[tuple[int, float]]:
    """(step, value) of a scalar as TensorBoard reads it."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run_folder), size_guidance={"scalars": 0})
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]
