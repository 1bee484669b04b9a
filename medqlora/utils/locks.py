"""Locks between processes, as files under the cache folder."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from medqlora.utils.cache import cache_folder
from medqlora.utils.console import say


@contextmanager
def one_at_a_time(path: Path, making: str) -> Iterator[None]:
    """A block in which one process makes `path`; the other processes wait, and then find it made.

    Where the file system has no locks, each process makes its own: slower, with the same result.

    Args:
        path: what is made, under the cache root; its name is also the lock's.
        making: the activity that a waiting process names ("building the demo's base").
    """
    from filelock import FileLock, Timeout

    try:
        lock = FileLock(_lock_file(path.name))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            say(f"Waiting for another process that is {making}")
            lock.acquire()
    except (OSError, NotImplementedError):
        yield
        return
    try:
        yield
    finally:
        lock.release()


def hold(path: Path) -> Callable[[], None]:
    """Makes this process the only writer of `path`, until the returned function is called or the process ends.

    Where the cache's file system has no locks, nothing is held.

    Raises:
        BlockingIOError: another process holds the file.
    """
    from filelock import FileLock, Timeout

    name = hashlib.sha256(str(path.resolve()).encode("utf-8", "surrogateescape")).hexdigest()
    try:
        lock = FileLock(_lock_file(name))
        lock.acquire(timeout=0)
    except Timeout as error:
        raise BlockingIOError(str(path)) from error
    except (OSError, NotImplementedError):
        return lambda: None
    return lock.release


def _lock_file(name: str) -> Path:
    """Raises OSError where the cache folder can't be made."""
    return cache_folder("locks") / f"{name}.lock"
