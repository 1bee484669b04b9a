"""Where files that can be made again are kept between runs."""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_folder(*parts: str) -> Path:
    """The folder `parts` under the cache root, created when missing.

    The root is `$MEDQLORA_CACHE`, else `$XDG_CACHE_HOME/medqlora`, else `~/.cache/medqlora`.

    Raises:
        OSError: the folder can't be created.
    """
    root = os.environ.get("MEDQLORA_CACHE")
    if root is None:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = Path(base, "medqlora", *parts)
    else:
        folder = Path(root, *parts)
    folder = folder.expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


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
