"""One of two processes that share a base, each with other work; `test_sharded_base` begins both.

python sharded_worker.py BASE STORE RANK
"""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from medqlora.data.batching.packing import pack
from medqlora.fused import FusedDecoder
from medqlora.inference.generation import generate
from medqlora.models import Decoder, LoRA, Transformers
from medqlora.models.sharded import ShardedBase, share_base
from medqlora.records import Encoded

CPU = torch.device("cpu")
PROMPTS = [[5, 6, 7, 8], [9, 10, 11], [12, 13, 14, 15, 16]]


def load(base: str) -> Any:
    backend = Transformers(base, gradient_checkpointing=False)
    model: Any = backend.load(lora=LoRA(r=4), adapter=None, device=CPU, dtype=torch.float32, seed=0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.02, generator=torch.Generator().manual_seed(len(name)))
    return model


def batch(number: int) -> Any:
    return pack([Encoded(f"{number}", tuple(PROMPTS[number]), (20, 21), ())])


def trained(model: Any, decoder: FusedDecoder, numbers: list[int]) -> list[Tensor]:
    model.zero_grad()
    for number in numbers:
        decoder.loss_sum(batch(number)).backward()
    return [one.grad.clone() for one in model.parameters() if one.requires_grad]


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


def main(base: str, store: str, rank: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=Path(store).as_uri(), rank=rank, world_size=2)
    model = load(base)
    mine = [[0, 1, 2], [1]][rank]  # passes, and new tokens, are more in the first process
    alone = FusedDecoder(model, checkpointing=2)
    gradients, answers = trained(model, alone, mine), asked(model, [alone, Decoder(model)], mine)
    before = layers_bytes(model)

    shared = share_base(model, CPU, dist.new_group(backend="gloo"))
    assert layers_bytes(model) == 0
    assert shared.share_bytes == shared.total_bytes / 2
    padding = len(shared.layers) * (7 * 3 + 2) * 256
    assert before <= shared.total_bytes <= before + padding
    assert most_whole(shared) == 2
    shared.join()

    decoder = FusedDecoder(model, checkpointing=2, shared=shared)
    same(trained(model, decoder, mine), gradients)
    shared.join()
    same(asked(model, [decoder, Decoder(model)], mine), answers)
    shared.join()
    assert layers_bytes(model) == 0

    if rank == 1:  # a pass that comes to no end, and is made up for
        loss = decoder.loss_sum(batch(2))
        assert layers_bytes(model) > 0
        del loss
        same(trained(model, decoder, mine), gradients)
    shared.join()
    assert layers_bytes(model) == 0

    # not a deadlock, where the processes are out of step
    with pytest.raises(RuntimeError, match="would never meet again"):
        shared.begin(backward=rank == 0)
    shared.begin(backward=False)
    with pytest.raises(RuntimeError, match="out of order"), shared.use(1):
        pass
    shared.join()
    with pytest.raises(RuntimeError, match="for a backward"):  # it would read what is no longer there
        model(torch.tensor([[5, 6]]))
    shared.discard()
    assert model.get_base_model().model.layers[0].mlp.up_proj.base_layer.weight.numel() == 0
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
