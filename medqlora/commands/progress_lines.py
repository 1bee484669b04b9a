"""Progress of long work in the terminal: a bar with total and time left, for each step."""

import sys

from tqdm import tqdm


class ProgressLines:
    """One bar for each step, on standard error; none where that is no terminal."""

    def __init__(self) -> None:
        self._step: str | None = None
        self._bar: tqdm | None = None

    def update(self, step: str, done: int, total: int) -> None:
        """Shows that `done` of `total` items of `step` are finished."""
        if step != self._step:
            self._close()
            self._step = step
            self._bar = tqdm(total=total, desc=step, disable=not sys.stderr.isatty(), leave=False)
        assert self._bar is not None
        self._bar.update(done - self._bar.n)
        if done >= total:
            self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._step, self._bar = None, None
