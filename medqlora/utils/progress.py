"""Progress of long work: on a terminal one moving line, elsewhere a few plain lines.

Every phase that may take more than a few seconds is shown: with its total and the time left where they are known,
else with the time so far. A thread redraws the line, so that it moves while one call takes long. Standard error gets
all of it, so that standard output holds results alone.
"""

import contextlib
import math
import sys
import threading
import time
from collections.abc import Iterator

from medqlora.utils.console import process_rank
from medqlora.utils.screen import SCREEN
from medqlora.utils.terminal import printable_line

#: seconds between two drawings by the thread, and least seconds between two by updates
_BEAT_S, _LEAST_S = 0.5, 0.1
#: without a terminal: seconds before the first line of a phase, and the longest wait between two
_FIRST_LINE_S, _LONGEST_WAIT_S = 30.0, 600.0
_CELLS = 16


def duration(seconds: float) -> str:
    """A time in words: 0.4 s, 12 s, 3 min 05 s, 2 h 10 min."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02} min"


def _whole(seconds: int) -> str:
    """As `duration`, in whole seconds."""
    return f"{seconds} s" if seconds < 60 else duration(seconds)


class Bar:
    """The progress of one phase. `start` makes one.

    Attributes:
        name: what is done, as "Tokenizing".
        total: number of items; None where it is not known.
        unit: what is counted, as "records".
        done: items that are finished.
        share: of the work that is finished, where the items differ in size; None for `done` of `total`.
        note: more to show at the line's end.
    """

    def __init__(self, name: str, total: int | None = None, unit: str = "", *, shown: bool = True) -> None:
        self.name = name
        self.total = total
        self.unit = unit
        self.done = 0.0
        self.share: float | None = None
        #: seconds left as the caller expects them, and when it did; None for the mean so far
        self._expected: tuple[float, float] | None = None
        self.note = ""
        self.began = time.monotonic()
        self._first_share = 0.0
        self._shown = shown
        self._wait = _FIRST_LINE_S
        self._next_line = self.began + self._wait

    def update(self, done: float, note: str | None = None, *, share: float | None = None) -> None:
        """Shows that `done` items are finished."""
        self.done, self.share = done, share
        if note is not None:
            self.note = note
        if self._shown:
            _BARS.changed(self)

    def advance(self, items: int = 1) -> None:
        """Shows that `items` more are finished."""
        self.update(self.done + items)

    def expect(self, left_s: float | None) -> None:
        """Takes the seconds left from the caller, who knows better than the mean so far; None for that mean."""
        self._expected = None if left_s is None else (left_s, time.monotonic())

    def begin_at(self, done: float) -> None:
        """Begins the clock here: what is finished already, as in a resumed run, tells nothing of the speed."""
        self.done, self.began = done, time.monotonic()
        self._first_share = self._finished or 0.0

    def draw(self) -> None:
        """Draws the line now, however short the time since the last drawing: the end of a short phase is seen."""
        if self._shown:
            _BARS.draw(self)

    def close(self) -> None:
        """Ends the phase: its line is drawn as it ended, and removed."""
        self.draw()
        if self._shown:
            _BARS.remove(self)
            self._shown = False

    # ---- text ----------------------------------------------------------------------------------------

    @property
    def _finished(self) -> float | None:
        """The finished share of the work, 0 to 1; None where the total is not known."""
        if self.share is not None:
            return min(1.0, self.share)
        return min(1.0, self.done / self.total) if self.total else None

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the end at the mean speed so far; None where nothing is known yet."""
        if self._expected is not None:
            left, at = self._expected
            return max(0.0, left - (time.monotonic() - at))
        finished = self._finished
        if finished is None or finished - self._first_share <= 0:
            return None
        return (time.monotonic() - self.began) * (1 - finished) / (finished - self._first_share)

    def line(self) -> str:
        """The line of a terminal."""
        parts, finished = [self.name], self._finished
        if finished is not None:
            full = math.floor(finished * _CELLS)
            parts.append(f"{'━' * full}{'─' * (_CELLS - full)} {finished:4.0%}")
        return "  ".join([*parts, *self._figures()])

    def plain_line(self) -> str:
        """The line of a log file."""
        finished = self._finished
        share = [] if finished is None else [f"{finished:.0%}"]
        return f"{self.name}: {', '.join([*share, *self._figures()])}"

    def _figures(self) -> list[str]:
        figures = (
            [] if self.total is None else [f"{math.floor(self.done):,}/{self.total:,} {self.unit}".strip()]
        )
        left = self.seconds_left
        passed = _whole(math.floor(time.monotonic() - self.began))
        figures.append(passed if left is None else f"{passed}, {_whole(round(left))} left")
        return [*figures, *([self.note] if self.note else [])]

    def print_if_due(self) -> None:
        """Without a terminal: prints a line after 30 s, and then at growing intervals."""
        now = time.monotonic()
        if now < self._next_line:
            return
        self._wait = min(_LONGEST_WAIT_S, 2 * self._wait)
        self._next_line = now + self._wait
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(printable_line(self.plain_line()) + "\n")
            sys.stderr.flush()


class _Bars:
    """The phases of this process: the innermost one has the line."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._open: list[Bar] = []
        self._thread: threading.Thread | None = None
        self._drawn = 0.0

    def add(self, bar: Bar) -> None:
        with self._lock:
            self._open.append(bar)
            if not SCREEN.is_terminal:
                return
            self._draw()
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._beat, name="progress", daemon=True)
                self._thread.start()

    def draw(self, bar: Bar) -> None:
        with self._lock:
            if self._open and self._open[-1] is bar:
                self._draw()

    def remove(self, bar: Bar) -> None:
        with self._lock:
            if bar in self._open:
                self._open.remove(bar)
            SCREEN.clear()
            self._draw()

    def clear(self) -> None:
        with self._lock:
            self._open.clear()
            SCREEN.clear()

    def changed(self, bar: Bar) -> None:
        if not SCREEN.is_terminal:
            bar.print_if_due()
        elif time.monotonic() - self._drawn >= _LEAST_S:
            self._draw()

    def _draw(self) -> None:
        with self._lock:
            if self._open:
                SCREEN.show(printable_line(self._open[-1].line()))
                self._drawn = time.monotonic()

    def _beat(self) -> None:
        while True:
            time.sleep(_BEAT_S)
            with self._lock:
                if not self._open:
                    self._thread = None
                    return
                self._draw()


_BARS = _Bars()


def start(name: str, total: int | None = None, unit: str = "", *, shown: bool = True) -> Bar:
    """Begins a phase, on the first process and if `shown` visibly; the caller closes it."""
    visible = shown and process_rank() == 0
    bar = Bar(name, total, unit, shown=visible)
    if visible:
        _BARS.add(bar)
    return bar


def end() -> None:
    """Ends every phase, as before an error is reported."""
    _BARS.clear()


@contextlib.contextmanager
def phase(name: str, total: int | None = None, unit: str = "", *, shown: bool = True) -> Iterator[Bar]:
    """A block whose progress is shown.

    Args:
        name: what is done, as "Tokenizing".
        total: number of items; None where it is not known.
        unit: what is counted, as "records".
        shown: False shows nothing.
    """
    bar = start(name, total, unit, shown=shown)
    try:
        yield bar
    finally:
        bar.close()


class Watcher:
    """Hears of the progress within a training step and within a group of questions; this one ignores it."""

    def step(self, tokens: int, of_tokens: int) -> None:
        """Called after each micro-batch: so many of the step's tokens went through the model."""

    def questions(self, count: float) -> None:
        """Called within a group: so many of its questions are finished, parts of a question included."""
