"""Progress of a command's steps: each has a line of its own while it lasts, with total and time left."""

from medqlora.utils.progress import Bar, start


class ProgressLines:
    """One line for each step; see `medqlora.utils.progress`."""

    def __init__(self) -> None:
        self._step: str | None = None
        self._bar: Bar | None = None

    def update(self, step: str, done: int, total: int) -> None:
        """Shows that `done` of `total` items of `step` are finished."""
        if step != self._step:
            self.close()
            self._step, self._bar = step, start(step, total)
        if self._bar is not None:
            self._bar.update(done)
        if done >= total:
            self.close()

    def close(self) -> None:
        """Removes the line, as after an error in the middle of a step."""
        if self._bar is not None:
            self._bar.close()
        self._step, self._bar = None, None
