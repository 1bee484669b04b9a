"""What `init` and `data` need to know of this machine: GPU, memory, disk."""

import shutil
from dataclasses import dataclass
from pathlib import Path

GIB = 2**30
#: compute capability from which the fused engine and bfloat16 work
_AMPERE = (8, 0)


@dataclass(frozen=True)
class Machine:
    """A machine to train on; sizes in bytes.

    Args:
        gpu: name of the GPU; None for a machine without one.
        gpu_memory: of the GPU; 0 without one.
        ampere: whether the GPU has bfloat16 and runs the fused engine; None where that is not known.
        memory: free host memory.
        disk: free where downloads go.
        here: whether it is this machine, not one that the user named.
    """

    gpu: str | None
    gpu_memory: int
    ampere: bool | None
    memory: int
    disk: int
    here: bool = True

    def line(self) -> str:
        """The machine in one line."""
        host = f"{self.memory / GIB:.1f} GiB of memory and {self.disk / GIB:.1f} GiB of disk free"
        if self.gpu is None:
            return f"Machine: no GPU; {host}"
        where = "" if self.here else ", as you said"
        return f"Machine: {self.gpu}, {self.gpu_memory / GIB:.1f} GiB{where}; {host}"


def this_machine(gpu: str | None = None, gpu_memory: int | None = None) -> Machine:
    """This machine, with the GPU that the user names in place of its own.

    Raises:
        InputError: the GPU is not known.
    """
    import psutil

    memory, disk = int(psutil.virtual_memory().available), _free_disk()
    if gpu is not None:
        from medqlora.planner.speed import gpu_named

        named = gpu_named(gpu)
        return Machine(gpu, gpu_memory or int(named.memory_gb * 10**9), named.fused, memory, disk, here=False)
    if gpu_memory is not None:
        return Machine("a GPU", gpu_memory, None, memory, disk, here=False)
    found = _own_gpu()
    if found is None:
        return Machine(None, 0, None, memory, disk)
    name, total, ampere = found
    return Machine(name, total, ampere, memory, disk)


def _own_gpu() -> tuple[str, int, bool] | None:
    """Name, bytes and whether it is from Ampere on, of this machine's first GPU; None where torch finds none."""
    import torch

    if not torch.cuda.is_available():
        return None
    properties = torch.cuda.get_device_properties(0)
    return properties.name, int(properties.total_memory), torch.cuda.get_device_capability(0) >= _AMPERE


def _free_disk() -> int:
    """Free bytes where the Hub's files go."""
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE).expanduser().absolute()
    while not folder.is_dir():
        folder = folder.parent
    return shutil.disk_usage(folder).free
