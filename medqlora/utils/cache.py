"""Where files that can be made again are kept between runs."""

import errno
import getpass
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_root() -> Path:
    """`$MEDQLORA_CACHE`, else `$XDG_CACHE_HOME/medqlora`, else `~/.cache/medqlora`; it need not be there yet.

    Raises:
        OSError: neither variable is set, and this user has no home folder.
    """
    try:
        if root := os.environ.get("MEDQLORA_CACHE"):
            return Path(root).expanduser()
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "medqlora").expanduser()
    except RuntimeError as error:  # pathlib's, of a user id without an entry in /etc/passwd
        raise OSError(errno.ENOENT, "this user has no home folder", "~/.cache/medqlora") from error


def cache_folder(*parts: str) -> Path:
    """The folder `parts` under `cache_root`, created when missing.

    Raises:
        OSError: the folder can't be created.
    """
    folder = cache_root().joinpath(*parts)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def why_not_writable(folder: Path) -> str | None:
    """Why no file can be written into `folder`, which need not be there yet; None where one can. Leaves nothing."""
    place = folder.absolute()
    while not place.is_dir():
        if place.exists() or place.is_symlink():
            return f"{place} is no folder"
        place = place.parent
    try:
        with tempfile.TemporaryFile(dir=place):
            return None
    except OSError as error:
        return error.strerror or type(error).__name__


def settle_without_home() -> None:
    """Gives libraries that cache under the home folder one here, for a user whose home can't be written.

    A container that runs under a user id of its own has no home: Matplotlib then warns, Triton fails as it compiles,
    torch's inductor asks for the user's name, and a download of the Hub has nowhere to go. What is set already stays.
    """
    try:
        getpass.getuser()
    except (KeyError, OSError, ImportError):  # what it raises depends on the Python
        os.environ["USER"] = f"uid{os.getuid()}"
    try:
        home = Path.home()
    except RuntimeError:
        home = Path("~")
    if home.is_absolute() and home.is_dir() and os.access(home, os.W_OK | os.X_OK):
        return
    try:
        root = cache_root()
    except OSError:
        root = None
    if root is None or why_not_writable(root) is not None:
        # what is compiled is made again in the next process
        own = Path(tempfile.gettempdir()) / f"medqlora-{getpass.getuser()}"
    else:
        own = root
        if not (home / ".cache" / "huggingface").is_dir():  # which may be there to be read
            os.environ.setdefault("HF_HOME", str(own / "huggingface"))
    os.environ.setdefault("MPLCONFIGDIR", str(own / "matplotlib"))
    os.environ.setdefault("TRITON_CACHE_DIR", str(own / "triton"))
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(own / "inductor"))


@contextmanager
def one_at_a_time(path: Path, making: str) -> Iterator[None]:
    """Around the making of `path`: of several processes one makes it, and the others wait and find it made.

    Where the file system knows no locks each makes its own, which is slower and no less right.

    Args:
        path: what is made, under the cache root; its name there is the lock's too.
        making: what a process that waits says it waits for.
    """
    from filelock import FileLock, Timeout

    try:
        lock = FileLock(cache_folder("locks") / f"{path.name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"Waiting for another process that is {making}", flush=True)
            lock.acquire()
    except (OSError, NotImplementedError):
        yield
        return
    try:
        yield
    finally:
        lock.release()


def hold(path: Path) -> Callable[[], None]:
    """Makes this process the only one that writes `path`, until what is returned is called, or it ends.

    Where the file system of the cache knows no locks nothing is held.

    Raises:
        BlockingIOError: another process holds it.
    """
    from filelock import FileLock, Timeout

    name = hashlib.sha256(str(path.resolve()).encode("utf-8", "surrogateescape")).hexdigest()
    try:
        lock = FileLock(cache_folder("locks") / f"{name}.lock")
        lock.acquire(timeout=0)
    except Timeout as error:
        raise BlockingIOError(str(path)) from error
    except (OSError, NotImplementedError):
        return lambda: None
    return lock.release
