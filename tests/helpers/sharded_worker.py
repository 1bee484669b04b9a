"""One of several processes that share a base, each with other work; `test_sharded_base` begins all of them.

python sharded_worker.py BASE STORE RANK SHARDS REPLICAS
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.fsdp._fully_shard import _fsdp_collectives, _fsdp_param

from medqlora.data.batching.packing import pack
from medqlora.distributed.processes import sharding_groups
from medqlora.fused import FusedDecoder
from medqlora.inference.generation import generate
from medqlora.models import Decoder, LoRA, Transformers, sharded_layer
from medqlora.models.sharded import ShardedBase, share_base
from medqlora.models.weight_shares import cut_while_loading
from medqlora.records import Encoded

CPU = torch.device("cpu")
PROMPTS = [[5, 6, 7, 8], [9, 10, 11], [12, 13, 14, 15, 16]]


def load(base: str, *, checkpointing: bool = False, dora: bool = False) -> Any:
    backend = Transformers(base, gradient_checkpointing=checkpointing)
    lora = LoRA(r=4, use_dora=dora)
    model: Any = backend.load(lora=lora, adapter=None, device=CPU, dtype=torch.float32, seed=0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.02, generator=torch.Generator().manual_seed(len(name)))
    return model


def batch(number: int) -> Any:
    return pack([Encoded(f"{number}", tuple(PROMPTS[number]), (20, 21), ())])


def trained(model: Any, decoder: FusedDecoder | Decoder, numbers: list[int]) -> list[Tensor]:
    model.zero_grad()
    for number in numbers:
        decoder.loss_sum(batch(number)).backward()
    return [one.grad.clone() for one in model.parameters() if one.grad is not None]


@torch.no_grad()
def asked(model: Any, decoders: list[Any], numbers: list[int]) -> list[Any]:
    model.eval()
    found: list[Any] = [
        one.hidden(batch(number), batch(number).rows) for one in decoders for number in numbers
    ]
    for number in numbers:
        found += generate(
            model,
            [PROMPTS[number]],
            max_new_tokens=2 + number,
            end_token_ids=(1,),
            pad_token_id=2,
            device=CPU,
        )
    model.train()
    return found


def same(found: list[Any], expected: list[Any]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other) if isinstance(one, Tensor) else one == other


def layers_bytes(model: Any) -> int:
    """What is in memory of the layers' 4-bit weights and scales, by torch's own storages."""
    storages = {}
    for module in model.get_base_model().model.layers.modules():
        state = getattr(getattr(module, "weight", None), "quant_state", None)
        if state is not None:
            for one in (module.weight, state.absmax, state.state2.absmax):
                storages[one.untyped_storage()._cdata] = one.untyped_storage().size()
    return sum(storages.values())


def most_whole(shared: ShardedBase) -> int:
    """The most layers that are in memory at one time of a pass with a backward."""
    count = len(shared.layers)
    most = 0
    shared.begin(backward=True)
    for number in [*range(count), *reversed(range(count))]:
        with shared.use(number):
            most = max(most, sum(layer.whole for layer in shared.layers))
    return most


def copies_as_a_gpu_does(targets: list[Tensor], sources: list[Tensor], non_blocking: bool = False) -> None:
    """`torch._foreach_copy_` as its CUDA kernel works: 16-bit types go through float32, and NaNs lose their bits."""
    for target, source in zip(targets, sources, strict=True):
        wide = source.float() if source.dtype in (torch.bfloat16, torch.float16) else source
        target.copy_(wide)


@contextmanager
def brings_other_bytes(here: bool) -> Iterator[None]:
    """While entered, a gather gets one bit of another process's part wrong, `here`."""
    gather = _fsdp_collectives.DefaultAllGather.__call__

    def wrong(self: Any, output_tensor: Tensor, *given: Any, **more: Any) -> Any:
        done = gather(self, output_tensor, *given, **{**more, "async_op": False})
        output_tensor.view(torch.uint8)[-output_tensor.numel()] ^= here
        return done

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_fsdp_collectives.DefaultAllGather, "__call__", wrong)
        yield


@contextmanager
def no_room_at(owner: type, name: str, call: int) -> Iterator[None]:
    """While entered, the method's call of this number finds no memory."""
    own, calls = getattr(owner, name), count(1)

    def method(*given: Any, **more: Any) -> Any:
        if next(calls) == call:
            raise torch.OutOfMemoryError("no room for a layer")
        return own(*given, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, method)
        yield
    assert next(calls) > call


def main(base: str, store: str, rank: int, shards: int = 2, replicas: int = 1) -> None:
    torch.set_num_threads(1)
    torch._foreach_copy_ = copies_as_a_gpu_does
    world_size = shards * replicas
    dist.init_process_group("gloo", init_method=Path(store).as_uri(), rank=rank, world_size=world_size)
    mesh, host = sharding_groups("cpu", shards)
    with pytest.MonkeyPatch.context() as patch:  # a type whose copies change bytes
        patch.setattr(sharded_layer, "STORED_AS", torch.bfloat16)
        with pytest.raises(RuntimeError, match="FSDP2 changes bytes"):
            share_base(load(base), CPU, mesh, host)
    with brings_other_bytes(rank % shards == 0), pytest.raises(RuntimeError, match="FSDP2 changes bytes"):
        share_base(load(base), CPU, mesh, host)
    # passes, and new tokens, are more in some processes; of the machines one has less than the other
    mine = [[0, 1, 2], [1], [2], []][rank]

    fused_trains_and_answers_as_a_whole_base(base, mesh, host, rank, mine, shards)
    if replicas == 1:
        native_trains_as_a_whole_base(base, mesh, host, mine)
    dist.destroy_process_group()


def fused_trains_and_answers_as_a_whole_base(
    base: str, mesh: Any, host: Any, rank: int, mine: list[int], shards: int
) -> None:
    model = load(base)
    alone = FusedDecoder(model, checkpointing=2)
    gradients, answers = trained(model, alone, mine), asked(model, [alone, Decoder(model)], mine)
    before = layers_bytes(model)

    with cut_while_loading(mesh) as shares:
        model = load(base)
    assert layers_bytes(model) == 0
    shared = share_base(model, CPU, mesh, host, shares)
    assert layers_bytes(model) == 0
    assert shared.share_bytes == shared.total_bytes / shards
    padding = len(shared.layers) * 7 * (3 + shards) * 256
    assert before <= shared.total_bytes <= before + padding
    assert most_whole(shared) == 2
    shared.join()

    decoder = FusedDecoder(model, checkpointing=2, shared=shared)
    same(trained(model, decoder, mine), gradients)
    shared.join()
    same(asked(model, [decoder, Decoder(model)], mine), answers)
    shared.join()
    assert layers_bytes(model) == 0

    shared.keep()  # then no process waits for another
    assert layers_bytes(model) >= before
    if rank % 2 == 0:
        same(asked(model, [decoder, Decoder(model)], mine), answers)
    shared.give_back()
    assert layers_bytes(model) == 0

    if rank == shards - 1:  # a pass that comes to no end, and is made up for
        loss = decoder.loss_sum(batch(2))
        assert layers_bytes(model) > 0
        del loss
        same(trained(model, decoder, mine), gradients)
        for gather in range(
            1, 6
        ):  # of three layers, forward and backward; the message, or the layer out of it
            for owner, name, call in (
                (_fsdp_collectives.DefaultAllGather, "allocate", gather),
                (_fsdp_param.FSDPParam, "alloc_all_gather_outputs", 7 * gather),
            ):
                with no_room_at(owner, name, call), pytest.raises(torch.OutOfMemoryError):
                    trained(model, decoder, mine)
                same(trained(model, decoder, mine), gradients)
    shared.join()
    assert layers_bytes(model) == 0

    # not a deadlock, where the processes are out of step
    with pytest.raises(RuntimeError, match="would never meet again"):
        shared.begin(backward=rank % shards == 0)
    shared.begin(backward=False)
    with pytest.raises(RuntimeError, match="out of order"), shared.use(1):
        pass
    shared.join()
    shared.discard()
    assert model.get_base_model().model.layers[0].mlp.up_proj.base_layer.weight.numel() == 0


def native_trains_as_a_whole_base(base: str, mesh: Any, host: Any, mine: list[int]) -> None:
    for checkpointing, dora in ((False, False), (True, True)):
        model = load(base, checkpointing=checkpointing, dora=dora)
        decoder = Decoder(model)
        gradients = trained(model, decoder, mine)
        shared = share_base(model, CPU, mesh, host)
        same(trained(model, decoder, mine), gradients)
        shared.join()
        assert layers_bytes(model) == 0


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
