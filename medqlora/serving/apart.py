"""Files of clients are read in a process of their own: one from anywhere may loop, or ask for any amount of memory."""

import asyncio
import contextlib
import sys

from medqlora.serving.errors import ServiceError

#: seconds and bytes that one file may take
SECONDS = 20
_MEMORY = 1 << 30


async def output_of(module: str, data: bytes, late: ServiceError) -> bytes:
    """What `python -m module` writes when it gets `data` as its input; it is ended after `SECONDS`.

    Raises:
        ServiceError: `late`, where it took longer.
    """
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


def limit_this_process() -> None:
    """Limits the memory and the time of this process, where the system can."""
    with contextlib.suppress(ImportError, ValueError, OSError):  # Windows has no such limits
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
