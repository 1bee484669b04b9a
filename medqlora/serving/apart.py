"""Files of clients are read in a process of their own: one from anywhere may loop, or ask for any amount of memory."""

import asyncio
import contextlib
import sys
from weakref import WeakKeyDictionary

from medqlora.serving.errors import ServiceError

#: seconds and bytes that one file may take
SECONDS = 20
_MEMORY = 1 << 30
#: files that are read at once, so that all of them fit the machine; seconds that the next one waits for its turn
AT_ONCE = 4
_PATIENCE_S = 60
_SLOTS: "WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore]" = WeakKeyDictionary()


async def output_of(module: str, data: bytes, late: ServiceError) -> bytes:
    """What `python -m module` writes when it gets `data` as its input; it is ended after `SECONDS`.

    Raises:
        ServiceError: `late`, where it took longer; or too many others are read.
    """
    slots = _slots()
    try:
        await asyncio.wait_for(slots.acquire(), _PATIENCE_S)
    except (TimeoutError, asyncio.TimeoutError):
        raise ServiceError(503, "too many files are read: ask again later", retry_after_s=5) from None
    try:
        return await _output_of(module, data, late)
    finally:
        slots.release()


async def _output_of(module: str, data: bytes, late: ServiceError) -> bytes:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(data), SECONDS)
    except (TimeoutError, asyncio.TimeoutError):
        raise late from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    return output


def _slots() -> asyncio.Semaphore:
    """The event loop's own: a semaphore belongs to the loop that first waited for it."""
    return _SLOTS.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(AT_ONCE))


def limit_this_process() -> None:
    """Limits the memory and the time of this process, where the system can."""
    with contextlib.suppress(ImportError, ValueError, OSError):  # Windows has no such limits
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
