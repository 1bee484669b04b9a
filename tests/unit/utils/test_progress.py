"""The line of a phase: its total, the time left, and what stands beside it on the screen."""

import io
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from medqlora.utils import progress
from medqlora.utils.console import say
from medqlora.utils.progress import Bar, duration, phase
from medqlora.utils.screen import SCREEN


class Terminal(io.StringIO):
    """A stream that says that it is a terminal; both of a process's streams go to it."""

    def isatty(self) -> bool:
        return True

    @property
    def lines(self) -> list[str]:
        """What stands on the screen: each drawing of the moving line replaces the one before."""
        shown = [line.rpartition("\r\x1b[K")[2] for line in self.getvalue().split("\n")]
        return shown if shown[-1] else shown[:-1]


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def terminal_of(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal for this process; not a fixture, since pytest puts its own streams in place before the test."""
    shown = Terminal()
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, shown)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(progress, "_LEAST_S", 0.0)
    return shown


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    # of this module alone: an event loop in another thread would sleep by the false clock for ever
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=clock, sleep=time.sleep))
    return clock


def test_a_phase_that_is_not_to_be_shown_leaves_the_screen_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal_of(monkeypatch)
    with phase("Hidden", 2, "answers", shown=False) as bar:
        bar.update(1)
        bar.draw()
    assert not screen.getvalue()
    with phase("Seen", 2, "answers") as bar:
        bar.update(1)
    assert "Seen" in screen.getvalue()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.6, "1 min 00 s"),
        (125, "2 min 05 s"),
        (3599.7, "1 h 00 min"),
        (7805, "2 h 10 min"),
    ],
)
def test_a_time_is_told_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_the_time_left_is_that_of_the_mean_so_far_and_a_resumed_run_begins_its_clock_anew(
    clock: Clock,
) -> None:
    bar = Bar("Training", 100, "steps", shown=False)
    bar.begin_at(40)
    assert bar.seconds_left is None
    clock.now += 20
    bar.update(60)  # a step a second, and 40 are left
    assert bar.seconds_left == pytest.approx(40)
    assert "60%" in bar.line()
    assert "60/100 steps  20 s, 40 s left" in bar.line()
    bar.expect(15.0)
    clock.now += 5
    assert bar.seconds_left == pytest.approx(10)


def test_without_a_total_the_time_so_far_is_told(clock: Clock) -> None:
    bar = Bar("Loading PyTorch", shown=False)
    clock.now += 3.7
    assert bar.line() == "Loading PyTorch  3 s"


def test_a_message_stands_on_a_line_of_its_own_and_a_finished_phase_leaves_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = terminal_of(monkeypatch)
    with phase("Tokenizing", 10, "records") as bar:
        bar.advance(4)
        say("a message")
        with phase("Reading"):
            pass
        bar.advance(6)
    say("the end")
    assert terminal.lines == ["a message", "the end"]
    assert "4/10 records" in terminal.getvalue()
    assert "10/10 records" in terminal.getvalue()
    assert terminal.getvalue().index("Reading") > terminal.getvalue().index("a message")


def test_an_error_within_a_phase_removes_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_of(monkeypatch)
    with pytest.raises(ValueError, match="x"), phase("Tokenizing", 10):
        raise ValueError("x")
    say("after it")
    assert terminal.lines == ["after it"]


def test_another_library_s_bar_has_the_screen_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_of(monkeypatch)
    monkeypatch.setattr(SCREEN, "gives_way", lambda: True)
    with phase("Loading the base model"):
        pass
    assert "Loading" not in terminal.getvalue()


def test_a_log_file_gets_a_plain_line_now_and_then_and_no_bar(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with phase("Test", 400, "questions") as bar:
        for number in range(1, 401):
            clock.now += 1
            bar.update(number)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Test: 8%, 30/400 questions, 30 s, 6 min 10 s left"
    assert len(lines) == 3  # after 30 s, 90 s and 210 s
    assert not any("\r" in line or "━" in line for line in lines)


def test_a_short_phase_says_nothing_to_a_log_file(capsys: pytest.CaptureFixture[str]) -> None:
    with phase("Tokenizing", 3) as bar:
        bar.advance(3)
    assert capsys.readouterr().err == ""


def test_libraries_tell_a_user_of_trouble_and_not_of_their_own_future() -> None:
    code = (
        "import os, warnings\n"
        "from medqlora.utils.libraries import quiet_libraries\n"
        "quiet_libraries()\n"
        "warnings.warn('a new default comes', FutureWarning)\n"
        "warnings.warn('it goes away', DeprecationWarning)\n"
        "warnings.warn('the driver is too old', UserWarning)\n"
        "print(os.environ['TRANSFORMERS_VERBOSITY'])\n"
    )
    environment = {"PATH": "", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert "the driver is too old" in done.stderr
    assert "FutureWarning" not in done.stderr
    assert "DeprecationWarning" not in done.stderr
    assert done.stdout == "error\n"
