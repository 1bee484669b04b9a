"""Two processes on one GPU, where there is one alone: the gathers of `--trainer.strategy fsdp` as on two GPUs.

    python tests/gpu/one_gpu.py --probe            # which ways there are, each with FSDP2's own copies, bit for bit
    python tests/gpu/one_gpu.py fit --config …     # a medqlora command; --trainer.devices=2 is this GPU twice

NCCL refuses two processes on a GPU, unless it takes them for two hosts (`NCCL_HOSTID`); the bytes then go through
sockets. Two other ways replace FSDP2's all-gather, and nothing else of it: through CUDA's memory of the other process
(`ipc`), and through the host (`gloo`). `ONE_GPU_WAY` chooses; else NCCL is tried first. `ONE_GPU_FOUND` names a file
that keeps what was found. Speeds measured here say nothing about two GPUs.
"""

import ctypes
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

WAYS = ("nccl", "ipc", "gloo")
PROBE_S = 45.0
#: what a layer of an 8B's shape has in each process's message, and of two slow ways the limit for a fit
MESSAGE_BYTES, SLOW_MS = 56 << 20, 25.0
OUTBOX_BYTES = 320 << 20


def nccl_environment(rank: int) -> dict[str, str]:
    """NCCL takes each process for one of another host, and reaches it by sockets."""
    return {
        "NCCL_HOSTID": f"one-gpu-{rank}",
        "NCCL_NET": "Socket",
        "NCCL_SOCKET_IFNAME": "lo",
        "NCCL_IB_DISABLE": "1",
        "NCCL_P2P_DISABLE": "1",
        "NCCL_SHM_DISABLE": "1",
        "NCCL_NVLS_ENABLE": "0",
        "NCCL_MNNVL_ENABLE": "0",
        "NCCL_SOCKET_NTHREADS": "4",
        "NCCL_NSOCKS_PERTHREAD": "4",
        # the processes' kernels run in turn: a message's part has to fit the buffers, or each part waits for a turn
        "NCCL_BUFFSIZE": str(16 << 20),
        "NCCL_MIN_NCHANNELS": "4",
        "NCCL_PROTO": "Simple",
    }


class Outboxes:
    """An all-gather of two processes through a buffer of each on the GPU, which the other one reads.

    The buffers are `cudaMalloc`'s own: torch's memory that grows in place has no handle of this kind.
    """

    def __init__(self, group: Any) -> None:
        import torch
        import torch.distributed as dist

        self._group = group
        self._rank = dist.get_rank()
        self._count = 0
        self._read: Any = None
        version = str(torch.version.cuda).partition(".")[0]
        self._cuda = ctypes.CDLL(f"libcudart.so.{version}")
        own = ctypes.c_void_p()
        self._check(self._cuda.cudaMalloc(ctypes.byref(own), ctypes.c_size_t(2 * OUTBOX_BYTES)))
        handle = Handle()
        self._check(self._cuda.cudaIpcGetMemHandle(ctypes.byref(handle), own))
        handles: list[Any] = [None, None]
        dist.all_gather_object(handles, bytes(handle.reserved), group=group)
        other = ctypes.c_void_p()
        theirs = Handle.from_buffer_copy(handles[1 - self._rank])
        self._check(self._cuda.cudaIpcOpenMemHandle(ctypes.byref(other), theirs, ctypes.c_uint(1)))
        self._own, self._other = own.value or 0, other.value or 0

    def gather(self, output: Any, own: Any) -> None:
        """`own` lies in its place of `output` already; this adds the other process's part."""
        import torch
        import torch.distributed as dist

        size = own.nbytes
        if size > OUTBOX_BYTES:
            raise ValueError(f"a message of {size} bytes")
        # Of two boxes one is written while the other may still be read: all copies of a message have ended at the
        # barrier of the next one.
        box = OUTBOX_BYTES * (self._count % 2)
        self._count += 1
        stream = torch.cuda.current_stream()
        self._copy(self._own + box, own.data_ptr(), size, stream)
        stream.synchronize()
        if self._read is not None:
            self._read.synchronize()
        dist.barrier(self._group)
        target = output.data_ptr() + size * (1 - self._rank)
        self._copy(target, self._other + box, size, stream)
        self._read = stream.record_event()

    def _copy(self, target: int, source: int, size: int, stream: Any) -> None:
        pointers = (ctypes.c_void_p(target), ctypes.c_void_p(source))
        on = ctypes.c_void_p(stream.cuda_stream)
        self._check(self._cuda.cudaMemcpyAsync(*pointers, ctypes.c_size_t(size), ctypes.c_int(3), on))

    def _check(self, code: int) -> None:
        if code:
            raise RuntimeError(f"CUDA error {code}")


class Handle(ctypes.Structure):
    """`cudaIpcMemHandle_t`."""

    _fields_ = [("reserved", ctypes.c_byte * 64)]


def through_host(group: Any, output: Any, own: Any) -> None:
    import torch
    import torch.distributed as dist

    sent = own.cpu().view(torch.uint8)
    parts = [torch.empty_like(sent) for _ in range(2)]
    dist.all_gather(parts, sent, group=group)
    other = 1 - dist.get_rank()
    output.view(torch.uint8).view(2, -1)[other].copy_(parts[other])


def replace_gather(way: str) -> None:
    """FSDP2 gathers by `way` from now on; "nccl" is what it does itself."""
    from torch.distributed.fsdp._fully_shard import _fsdp_collectives

    if way == "nccl":
        return
    state: dict[str, Any] = {}

    def gather(
        _: object, output_tensor: Any, input_tensor: Any, group: object, async_op: bool = False
    ) -> None:
        import torch.distributed as dist

        if "group" not in state:  # the first gather of all processes
            state["group"] = dist.new_group(backend="gloo")
        if way == "gloo":
            through_host(state["group"], output_tensor, input_tensor)
            return
        if "boxes" not in state:
            state["boxes"] = Outboxes(state["group"])
        state["boxes"].gather(output_tensor, input_tensor)

    _fsdp_collectives.DefaultAllGather.__call__ = gather


def backend(way: str) -> str:
    """Of the process group that carries all but the gathers."""
    return "nccl" if way == "nccl" else "gloo"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


# ---- which ways there are ----------------------------------------------------------------------------


def probe(limit_s: float = PROBE_S) -> dict[str, float]:
    """Way → milliseconds of a gather, of those that give each process the other's bytes."""
    port = free_port()
    since = time.monotonic()
    workers = []
    for rank in range(2):
        environment = {**os.environ, **nccl_environment(rank), "RANK": str(rank), "PORT": str(port)}
        words = [sys.executable, __file__, "--probing"]
        workers.append(subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True))
    # a way may hang, and the last line says which ones did not
    timer = threading.Timer(limit_s, lambda: [worker.kill() for worker in workers])
    timer.start()
    lines = [worker.communicate()[0].splitlines() for worker in workers]
    timer.cancel()
    found: dict[str, float] = {}
    for line in lines[0]:
        if line.startswith("{"):
            row = json.loads(line)
            if row["equal"]:
                found[row["way"]] = row["ms"]
    for line in [*lines[0], *lines[1]]:
        print("  ", line)
    codes = [worker.returncode for worker in workers]
    if "ONE_GPU_FOUND" in os.environ:
        Path(os.environ["ONE_GPU_FOUND"]).write_text(json.dumps(found), encoding="utf-8")
    print(
        f"two processes on one GPU: {found}, {time.monotonic() - since:.0f} s, exit codes {codes}", flush=True
    )
    return found


def probing(rank: int, port: int) -> None:
    """In each process: the ways one after another, that which may hang last."""
    import torch
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp._fully_shard import _fsdp_collectives

    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu", 0)
    if cuda:
        torch.cuda.set_device(device)
        torch.cuda.init()
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    own = _fsdp_collectives.DefaultAllGather.__call__
    for way in ("ipc", "gloo", "nccl") if cuda else ("gloo",):
        try:
            _fsdp_collectives.DefaultAllGather.__call__ = own
            replace_gather(way)
            mesh = init_device_mesh(device.type, (2,))  # of gloo and NCCL
            row = gathered(mesh, device, rank, MESSAGE_BYTES if cuda else 1 << 16)
        except Exception as error:
            row = {"equal": False, "ms": 0.0, "failed": f"{type(error).__name__}: {str(error)[:300]}"}
        if rank == 0 or "failed" in row:
            print(json.dumps({"way": way, **row}), flush=True)
    sys.stdout.flush()
    os._exit(0)  # NCCL may wait at its end


def gathered(mesh: Any, device: Any, rank: int, size: int) -> dict[str, Any]:
    """Random bytes, held as float32 and as bfloat16, sharded and gathered by FSDP2: how many of them changed."""
    import torch
    from torch import nn
    from torch.distributed.fsdp import fully_shard

    row: dict[str, Any] = {}
    parts = [
        torch.randint(256, (size,), dtype=torch.uint8, generator=torch.Generator().manual_seed(number))
        for number in range(2)
    ]
    whole = torch.cat(parts).to(device)
    for dtype in (torch.float32, torch.bfloat16):
        module = nn.Module()
        empty = torch.empty(2 * size // dtype.itemsize, dtype=dtype, device="meta")
        module.register_parameter("weight", nn.Parameter(empty, requires_grad=False))
        fully_shard(module, mesh=mesh, reshard_after_forward=True)
        module.to_empty(device=device)
        local: Any = module.weight
        local.to_local().copy_(parts[rank].to(device).view(dtype))
        times = []
        for _ in range(4):
            begun = time.perf_counter()
            module.unshard(async_op=True).wait()  # type: ignore[operator]
            if device.type == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - begun)
            found: Any = module.weight
            changed = int((found.data.view(torch.uint8) != whole).sum())
            module.reshard()  # type: ignore[operator]
        row[f"changed_{str(dtype).partition('.')[2]}"] = changed
        row.setdefault("ms", round(sorted(times)[1] * 1e3, 2))
    row["equal"] = row["changed_float32"] == 0
    return row


def chosen(found: dict[str, float], *, fit: bool) -> str:
    """NCCL where it works; for a fit another way where NCCL takes long."""
    given = os.environ.get("ONE_GPU_WAY")
    if given:
        return given
    ways = [way for way in WAYS if way in found]
    if not ways:
        raise SystemExit("two processes on this GPU have no way to exchange bytes")
    if fit and found[ways[0]] > SLOW_MS:
        return min(ways, key=lambda way: found[way])
    return ways[0]


def settle(*, fit: bool) -> str:
    """Chooses the way, and sets it for the processes that this one begins."""
    file = Path(os.environ.get("ONE_GPU_FOUND", ""))
    found = {}
    if not os.environ.get("ONE_GPU_WAY"):
        found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else probe()
    way = chosen(found, fit=fit)
    os.environ["ONE_GPU_WAY"] = way
    print(f"the gathers' way: {way}", flush=True)
    return way


# ---- a medqlora command ------------------------------------------------------------------------------


def command() -> int:
    """A command on this GPU twice; Lightning begins the second process with the same words."""
    way = os.environ.get("ONE_GPU_WAY", "nccl")
    os.environ.update(nccl_environment(int(os.environ.get("LOCAL_RANK", "0"))))
    import medqlora  # its settings of torch's memory, before torch

    sys.path.insert(0, str(Path(medqlora.__file__).resolve().parent.parent / "tests" / "helpers"))
    import torch
    import torch.distributed as dist
    from lightning.pytorch.accelerators import CUDAAccelerator
    from lightning.pytorch.strategies import DDPStrategy

    from medqlora.cli import main

    if torch.cuda.is_available():
        torch.cuda.set_device(0)
        torch.cuda.init()  # torch's mesh would take the GPU of LOCAL_RANK

        def twice(devices: Any) -> Any:
            return [0] * int(devices) if str(devices).isdigit() else [0]

        CUDAAccelerator.parse_devices = staticmethod(twice)
    if way != "nccl":
        begin = dist.init_process_group

        def without_device(name: str | None = None, **more: Any) -> None:
            begin(name, **{**more, "device_id": None})

        DDPStrategy._get_process_group_backend = lambda _: backend(way)
        dist.init_process_group = without_device
        replace_gather(way)
    return main()


if __name__ == "__main__":
    if sys.argv[1:] == ["--probe"]:
        sys.exit(0 if probe() else 1)
    if sys.argv[1:] == ["--probing"]:
        probing(int(os.environ["RANK"]), int(os.environ["PORT"]))
    sys.exit(command())
