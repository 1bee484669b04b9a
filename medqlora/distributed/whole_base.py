"""A sharded base, whole on every device for the time of an evaluation that generates."""

import torch

from medqlora.distributed.collectives import gather
from medqlora.models.sharded import ShardedBase
from medqlora.training.fit_plan import size
from medqlora.utils.console import say
from medqlora.utils.free_memory import free_host_bytes

#: share of a GPU's memory that stays free for the generation; of the host's, which other programs need
_FREE_SHARE, _FREE_HOST_SHARE = 0.15, 0.5


def keep_where_it_fits(shared: ShardedBase, device: torch.device, world_size: int, *, tell: bool) -> bool:
    """Gathers all layers at once where every device has room; else each new token gathers them one by one.

    All processes call it together.

    Args:
        shared: the base; the caller calls `give_back` after the evaluation.
        device: where this process runs.
        world_size: number of processes.
        tell: whether to tell the user.

    Returns:
        Whether it is kept.
    """
    shared.join()
    needed = shared.total_bytes - shared.share_bytes
    fits = all(gather([needed <= _room(device, shared.shards)], world_size))
    if fits:
        shared.keep()
        if tell:
            say(f"Generation: each process gathers the whole base for it, {size(shared.total_bytes)}")
    elif tell:
        say(
            f"Generation: every new token gathers all layers, since {size(shared.total_bytes)} do not fit each device "
            "beside the rest: --model.generate false leaves generation out"
        )
    return fits


def _room(device: torch.device, processes: int) -> int:
    """Bytes that each of so many processes of a machine may take here."""
    if device.type != "cuda":
        return int((1 - _FREE_HOST_SHARE) * free_host_bytes() / processes)
    free, total = torch.cuda.mem_get_info(device)
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(free + unused - _FREE_SHARE * total)
