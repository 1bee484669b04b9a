"""A case on several GPUs of this host, one process per GPU."""

import json
import os
import signal
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import distributed
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException, spawn

from medqlora.profiling.case import Case
from medqlora.profiling.failures import failure
from medqlora.profiling.figures import Figures, Share, combined
from medqlora.utils.distributed_errors import LostProcessError, patience

#: seconds for the other processes to write their results after one has ended
_GRACE_S = 5


def measure_on_devices(case: Case) -> Figures:
    """The figures of all processes together, or the failure of the process that failed first."""
    # as Lightning does in a fit; by default each process would use all cores of the host
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // case.devices)))
    # this process owns the store, so that it outlives the others; port 0 takes a free one
    store = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    with tempfile.TemporaryDirectory(prefix="medqlora-bench-") as folder:
        context = spawn(_run, (case, store.port, folder), nprocs=case.devices, join=False)
        failed = False
        try:
            while not context.join(grace_period=_GRACE_S):
                pass
        except (ProcessExitedException, ProcessRaisedException):
            failed = True
        results = [_read(Path(folder), rank) for rank in range(case.devices)]
    shares = [result.share for result in results if result.share is not None]
    if failed or len(shares) < case.devices:
        codes = [process.exitcode for process in context.processes]
        return culprit(codes, [result.failure for result in results])
    return combined(shares)


class _Result(NamedTuple):
    """The result file of a process: its measurements or its failure; neither if it was killed."""

    share: Share | None = None
    failure: Figures | None = None


def _read(folder: Path, rank: int) -> _Result:
    path = _path(folder, rank)
    return _Result(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else _Result()


def _path(folder: Path, rank: int) -> Path:
    return folder / f"{rank}.json"


def culprit(codes: Sequence[int | None], failures: Sequence[Figures | None]) -> Figures:
    """The failure of the process that failed by itself, not of those that lost their connection to it.

    Args:
        codes: each process's exit code; -15 if it was terminated because of another.
        failures: each process's failure; None if it has none or wrote none.
    """
    written = [failure for failure in failures if failure is not None]
    lost = [failure for failure in written if failure["failed"].startswith(LostProcessError.__name__)]
    own = [failure for failure in written if failure not in lost]
    if own:
        return own[0]
    silent = [failure for failure in lost if "not answered" in failure["failed"]]
    if silent:  # the process that hung has been killed since
        return silent[0]
    for rank, code in enumerate(codes):
        if code not in (None, 0, 1, -signal.SIGTERM):
            ended = f"by {signal.Signals(-code).name}" if code < 0 else f"with {code}"
            return {"failed": f"process {rank + 1} of {len(codes)} ended {ended}"}
    return lost[0] if lost else {"failed": f"one of {len(codes)} processes ended without a word"}


def _run(rank: int, case: Case, port: int, folder: str) -> None:
    """The main function of each process: writes its measurements or its failure to a file."""
    path = _path(Path(folder), rank)
    try:
        path.write_text(json.dumps({"share": _share(rank, case, port)}), encoding="utf-8")
    except Exception as error:
        traceback.print_exc()
        path.write_text(json.dumps({"failure": failure(error)}), encoding="utf-8")
        raise


def _share(rank: int, case: Case, port: int) -> Share:
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
    from medqlora.profiling.measure import measure_share  # the waiting parent needn't import it

    share = measure_share(case, rank)
    distributed.destroy_process_group()
    return share
