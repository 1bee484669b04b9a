"""The `medqlora` command: lists the commands, starts one, and turns errors into one line and an exit code.

Nothing heavy is imported before a command needs it, so that `medqlora --help` answers at once.
"""

import contextlib
import difflib
import errno
import os
import shlex
import sys
import time
from collections.abc import Sequence

from medqlora import __version__
from medqlora.commands.registry import commands
from medqlora.compat.tqdm import bars_shown
from medqlora.errors import InputError
from medqlora.utils.cache import settle_without_home
from medqlora.utils.console import process_rank
from medqlora.utils.import_progress import show_imports
from medqlora.utils.interrupts import FitError, Interrupted, interrupting
from medqlora.utils.libraries import quiet_libraries
from medqlora.utils.progress import duration, end
from medqlora.utils.screen import SCREEN
from medqlora.utils.terminal import printable, printable_line

_USAGE = """usage: medqlora COMMAND [--config FILE ...] [--OPTION VALUE ...]

QLoRA fine-tuning of language models on medical question answering.

commands:
{commands}

`medqlora COMMAND --help` explains a command's options, and --debug shows where an error came from.
Configurations compose, the later one wins: --config configs/qlora.yaml --config configs/colab_t4.yaml.
Without --config the demo runs: configs/demo.yaml, on a CPU, without downloads.

    medqlora fit  --config configs/qlora.yaml     # train Llama-3-8B on PubMedQA
    medqlora test --config configs/qlora.yaml     # its accuracy on the official 500 test questions
    tensorboard --logdir lightning_logs           # watch it
"""


def usage() -> str:
    """The text of `medqlora --help`."""
    width = max(map(len, commands()))
    lines = (f"  {name:<{width}}  {command.help}" for name, command in commands().items())
    return _USAGE.format(commands="\n".join(lines))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; the return value is the process's exit code (0 done, 2 wrong input, 1 anything else)."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    if arguments is None and not debug and not sys.warnoptions:
        quiet_libraries()
    if SCREEN.is_terminal:
        show_imports()
        SCREEN.gives_way = bars_shown
    if hasattr(sys.stdout, "reconfigure"):  # on a terminal without UTF-8 a dash must not end a command
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with interrupting():
            return _timed(words)
    except InputError as error:
        if debug:
            raise
        _report(f"medqlora: error: {printable_line(str(error))}")
        return 2
    except Interrupted as stop:
        if process_rank() == 0:  # Ctrl-C reaches every process of a run
            _report(f"medqlora: ended by {stop.signal.name}{_checkpoint_note(stop, words)}")
        return stop.exit_code
    except (KeyboardInterrupt, SystemExit):
        raise
    except BrokenPipeError:  # the reader of the output has closed it, as `head -1` does
        # no second error at exit: https://docs.python.org/3/library/signal.html#note-on-sigpipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # 128 + SIGPIPE, as a shell names it
    except FitError as failure:
        if debug:
            raise
        resume = f"; the checkpoint of step {failure.step} is whole: go on with `{_resume(words)}`"
        _report(f"medqlora: failed: {_first_line(failure.error)}{resume} (--debug shows where)")
        return 1
    except Exception as error:
        if debug:
            raise
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:  # the option is not known here
            _report(f"medqlora: error: {str(error.filename)[:80]}…: the name is too long")
            return 2
        _report(f"medqlora: failed: {_first_line(error)} (--debug shows where)")
        return 1


def _report(line: str) -> None:
    """Prints the last line of a failed command to standard error, on a line of its own."""
    end()
    print(line, file=sys.stderr)


def _timed(words: list[str]) -> int:
    """Runs a command and writes its duration to standard error."""
    began = time.monotonic()
    code = _run(words)
    shows = ("-h", "--help", "--print_config")
    works = bool(words) and words[0] in commands() and not any(word.startswith(shows) for word in words)
    if code == 0 and works and process_rank() == 0:
        if sys.stdout is not None:
            sys.stdout.flush()  # raises BrokenPipeError if the results' reader is gone
        with contextlib.suppress(
            OSError, ValueError, AttributeError
        ):  # the stream is closed, or its disk is full
            sys.stderr.write(f"Took {duration(time.monotonic() - began)}\n")
            sys.stderr.flush()
    return code


def _run(words: list[str]) -> int:
    if len(words) > 1 and words[0] in ("-h", "--help", "help") and words[1] in commands():
        words = [words[1], "--help"]
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage(), end="", flush=True)
        return 0
    if words[0] in ("-V", "--version"):
        print(f"medqlora {__version__}", flush=True)
        return 0
    command, rest = words[0], words[1:]
    if command not in commands():
        raise InputError(_no_command(words))
    if sys.flags.optimize > 1:
        raise InputError(
            "PYTHONOPTIMIZE=2 (python -OO) removes docstrings, and transformers needs them to load a model: unset it, "
            "or use 1"
        )
    settle_without_home()
    return commands()[command].start(rest)


def _no_command(words: list[str]) -> str:
    """The error message for words that don't begin with a command, with the nearest right command line."""
    first = words[0]
    name = first.lstrip("-").lower()
    if first.lower().endswith((".yaml", ".yml", ".json")):
        return f"'{first}' is no command: write medqlora fit --config {shlex.join(words)}"
    known = commands()
    if not first.startswith("-") or name in known:
        meant = {other: command.name for command in known.values() for other in (*command.also, command.name)}
        close = next(iter(difflib.get_close_matches(name, meant, 1)), "")
        near = meant.get(name) or meant.get(close)
        hint = f"did you mean '{near}'?" if near else f"the commands are {', '.join(known)}"
        return f"there is no command '{first}': {hint}"
    # a word after an option may be its value (--data.prompt fit); a later one is the command
    indices = [index for index, word in enumerate(words) if word in known]
    certain = [i for i in indices if not words[i - 1].startswith("-") or "=" in words[i - 1]]
    if not indices:
        option = first.split("=", 1)[0]
        return f"{option}: the command comes first: medqlora fit {shlex.join(words)}"
    index = (certain or indices)[0]
    moved = [words[index], *words[:index], *words[index + 1 :]]
    return f"{first.split('=', 1)[0]}: options stand after the command: write medqlora {shlex.join(moved)}"


def _resume(words: list[str]) -> str:
    """The command line that resumes an interrupted run."""
    from medqlora.config.words import resume_command  # reads YAML: heavy for most commands

    return resume_command(words)


def _checkpoint_note(stop: Interrupted, words: list[str]) -> str:
    """The end of the line for an interrupted command: its checkpoint, and how to resume."""
    if stop.step is not None:
        return f" with the checkpoint of step {stop.step}: go on with `{_resume(words)}`"
    return " with no new checkpoint" if words[:1] in (["fit"], ["full"]) else ""


def _first_line(error: Exception) -> str:
    first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return f"{type(error).__name__}: {printable(first)}"
