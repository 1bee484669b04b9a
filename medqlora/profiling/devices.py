"""A case on several GPUs of this host: a process on each, which take their shares of the same steps."""

import json
import os
import signal
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException, spawn

from medqlora.profiling.case import Case
from medqlora.profiling.failures import failure
from medqlora.profiling.shares import combined
from medqlora.utils.distributed_errors import LostProcessError, patience

#: how long the others may take to say what they saw, once one process has ended
_GRACE_S = 5


def measure_on_devices(case: Case) -> dict[str, Any]:
    """The figures of all processes together, or `{"failed": why}` of the one that failed first."""
    # as Lightning does in a fit, or each would take all of the host's cores
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // case.devices)))
    # this process keeps it, so that it stands when one of the others ends; 0 takes a free port
    store = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    with tempfile.TemporaryDirectory(prefix="medqlora-bench-") as folder:
        context = spawn(_one, (case, store.port, folder), nprocs=case.devices, join=False)
        failed = False
        try:
            while not context.join(grace_period=_GRACE_S):
                pass
        except (ProcessExitedException, ProcessRaisedException):
            failed = True
        files = [Path(folder, f"{rank}.json") for rank in range(case.devices)]
        shares = [json.loads(file.read_text(encoding="utf-8")) if file.exists() else None for file in files]
    whole = [share for share in shares if share is not None]
    if failed or len(whole) < case.devices:
        return culprit([process.exitcode for process in context.processes], shares)
    return combined(whole)


def culprit(codes: Sequence[int | None], shares: Sequence[dict[str, Any] | None]) -> dict[str, Any]:
    """What ended a case: the failure of the process that failed by itself, not of those that lost it.

    Args:
        codes: each process's exit code; -15 where it was ended because of another.
        shares: what each left: figures, `{"failed": why}`, or None.
    """
    found = [share for share in shares if share is not None and "failed" in share]
    lost = [share for share in found if share["failed"].startswith(LostProcessError.__name__)]
    own = [share for share in found if share not in lost]
    if own:
        return own[0]
    silent = [share for share in lost if "not answered" in share["failed"]]
    if silent:  # the one that hung was killed by now
        return silent[0]
    for rank, code in enumerate(codes):
        if code not in (None, 0, 1, -signal.SIGTERM):
            ended = f"by {signal.Signals(-code).name}" if code < 0 else f"with {code}"
            return {"failed": f"process {rank + 1} of {len(codes)} ended {ended}"}
    return lost[0] if lost else {"failed": f"one of {len(codes)} processes ended without a word"}


def _one(rank: int, case: Case, port: int, folder: str) -> None:
    """What each process runs; its share, or what went wrong, goes to a file."""
    answer = Path(folder, f"{rank}.json")
    try:
        answer.write_text(json.dumps(_share(rank, case, port)), encoding="utf-8")
    except Exception as error:
        traceback.print_exc()
        answer.write_text(json.dumps(failure(error)), encoding="utf-8")
        raise


def _share(rank: int, case: Case, port: int) -> dict[str, Any]:
    gpu = torch.device("cuda", rank) if case.device == "cuda" else None
    if gpu is not None:
        torch.cuda.set_device(gpu)
    distributed.init_process_group(
        "gloo" if gpu is None else "nccl",
        store=distributed.TCPStore("127.0.0.1", port, is_master=False, timeout=patience()),
        rank=rank,
        world_size=case.devices,
        timeout=patience(),
        device_id=gpu,
    )
    from medqlora.profiling.measure import measure_share  # the process that only waits is spared it

    share = measure_share(case, rank)
    distributed.destroy_process_group()
    return share
