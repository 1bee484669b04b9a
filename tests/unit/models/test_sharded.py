"""A sharded base of any architecture, in one process that is all of those that share it.

FSDP2 frees and gathers its layers as with several; `tests/runs/test_sharded_base.py` has real ones.
"""

import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from tiny import build_base
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from medqlora.data.batching.packing import micro_batch
from medqlora.distributed.processes import sharding_groups
from medqlora.errors import InputError
from medqlora.models import Decoder, LoRA, Transformers
from medqlora.models.layers import decoder_layers
from medqlora.models.sharded import share_base
from medqlora.models.weight_shares import cut_while_loading, packed_weights
from medqlora.records import Encoded

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def mesh() -> Iterator[DeviceMesh]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield sharding_groups("cpu", 1)[0]
    dist.destroy_process_group()


def load(base: Path, **options: Any) -> Any:
    model: Any = Transformers(str(base), **options).load(
        lora=LoRA(r=4), adapter=None, device=CPU, dtype=torch.float32, seed=0
    )
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.02, generator=torch.Generator().manual_seed(len(name)))
    return model


def gradients(model: Any) -> list[Tensor]:
    model.zero_grad()
    example = Encoded(id="0", prompt=tuple(range(3, 12)), completion=(7, 9, 1))
    Decoder(model).loss_sum(micro_batch([example], packed=False, pad_token_id=2)).backward()
    return [one.grad.clone() for one in model.parameters() if one.grad is not None]


def is_freed(model: Any) -> bool:
    weights = [weight for layer in decoder_layers(model) for weight in packed_weights(layer)]
    return bool(weights) and all(weight.untyped_storage().size() == 0 for weight in weights)


@pytest.mark.parametrize(
    ("family", "changes", "checkpointing"),
    [
        (
            "gpt2",
            {"resid_pdrop": 0.0, "attn_pdrop": 0.0, "embd_pdrop": 0.0},
            True,
        ),  # its layers are `transformer.h`
        ("mixtral", {"num_local_experts": 4}, True),  # packed experts are no linear layers
        ("mixtral", {"num_local_experts": 4}, False),
        ("phi", {}, False),
    ],
)
def test_any_architecture_has_the_gradients_of_a_whole_base(
    family: str, changes: dict[str, Any], checkpointing: bool, mesh: DeviceMesh, tmp_path: Path
) -> None:
    model = load(build_base(tmp_path / "base", family, **changes), gradient_checkpointing=checkpointing)
    expected = gradients(model)
    shared = share_base(model, CPU, mesh, None)
    assert is_freed(model)
    for _ in range(2):
        assert all(torch.equal(a, b) for a, b in zip(gradients(model), expected, strict=True))
    shared.join()
    assert is_freed(model)


def test_a_forward_that_fails_leaves_the_next_pass_whole(
    mesh: DeviceMesh, tiny_bases: dict[str, Path]
) -> None:
    model = load(tiny_bases["gemma2"])
    expected = gradients(model)
    shared = share_base(model, CPU, mesh, None)
    layers = decoder_layers(model)

    def fails(*_: object) -> None:
        raise torch.OutOfMemoryError("in this layer")

    for layer in (layers[0], layers[-1]):
        handle = layer.mlp.register_forward_pre_hook(fails)  # type: ignore[union-attr]
        with pytest.raises(torch.OutOfMemoryError):
            gradients(model)
        handle.remove()
        assert all(torch.equal(a, b) for a, b in zip(gradients(model), expected, strict=True))
    shared.join()
    assert is_freed(model)


def test_a_layer_that_runs_twice_is_refused(mesh: DeviceMesh, tiny_bases: dict[str, Path]) -> None:
    model = load(tiny_bases["llama"])
    share_base(model, CPU, mesh, None)
    first, *_ = layers = decoder_layers(model)
    body = model.get_base_model().model
    body.layers = torch.nn.ModuleList([first, first, *layers[2:]])
    with pytest.raises(RuntimeError, match="layer 0 is used out of order"):
        gradients(model)


def test_damaged_scales_are_found_while_a_base_is_read_in_shares(
    mesh: DeviceMesh, tiny_bases: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "stored"
    Transformers(str(tiny_bases["llama"])).load(
        lora=None, adapter=None, device=CPU, dtype=torch.float32, seed=0
    ).save_pretrained(folder)  # type: ignore[operator]
    file = folder / "model.safetensors"
    tensors = load_file(file)
    tensors[next(name for name in sorted(tensors) if name.endswith("nested_absmax"))][0] = torch.nan
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(InputError, match="nested_absmax' holds NaN"), cut_while_loading(mesh):
        load(folder)


def test_a_share_that_was_cut_while_it_was_read_is_not_held_beside_its_shard(
    mesh: DeviceMesh, tiny_bases: dict[str, Path]
) -> None:
    with cut_while_loading(mesh) as shares:
        model = load(tiny_bases["llama"])
    read = [weakref.ref(share.part) for share in shares.values()]
    assert len(read) == 7 * len(decoder_layers(model))
    shared = share_base(model, CPU, mesh, None, shares)
    assert shared.share_bytes
    assert not [part for part in read if part() is not None]


def test_only_a_base_that_is_read_once_is_cut_while_it_is_read(
    tiny_bases: dict[str, Path], tmp_path: Path
) -> None:
    backend = Transformers(str(tiny_bases["llama"]))
    assert backend.reads_weights_once(lora=LoRA(), adapter=None)
    assert not backend.reads_weights_once(lora=LoRA(use_dora=True), adapter=None)
    assert not backend.reads_weights_once(lora=LoRA(init="loftq"), adapter=None)
    assert not Transformers("a-base", quantization="awq").reads_weights_once(lora=LoRA(), adapter=None)
    mixture = Transformers(str(build_base(tmp_path / "mixture", "mixtral", num_local_experts=4)))
    assert not mixture.reads_weights_once(lora=LoRA(), adapter=None)
