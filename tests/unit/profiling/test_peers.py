"""Other trainers are compared at their recipe and at ours, and what is missing is said before anything runs."""

import importlib.util

import pytest
import torch

from medqlora.errors import InputError
from medqlora.profiling import SHAPES, Case
from medqlora.profiling.case import PEERS
from medqlora.profiling.peers import check_peers, measure_peer, peer_cases

TINY = SHAPES["tiny"][1]


@pytest.mark.parametrize("name", PEERS)
def test_every_peer_runs_its_recipe_and_packed_with_checkpointing_on_and_off(name: str) -> None:
    cases = peer_cases(name, [2048, 8192], Case(trainer="fused", shape=TINY, steps=3))
    settings = [(case.packing, case.micro_batch_tokens, case.checkpointing == "none") for case in cases]
    assert settings == [
        (False, 256, False), (False, 256, True), (True, 2048, False), (True, 2048, True),
        (True, 8192, False), (True, 8192, True),
    ]  # fmt: skip
    assert [(case.batch_size, case.accumulate) for case in cases[:2]] == [(2, 4)] * 2
    assert all((case.trainer, case.shape, case.steps) == (name, TINY, 3) for case in cases)


@pytest.mark.skipif(importlib.util.find_spec("trl") is not None, reason="TRL is installed")
@pytest.mark.parametrize("name", PEERS)
def test_a_missing_package_is_named(name: str) -> None:
    with pytest.raises(
        InputError, match=f"--peer {name}: the package 'trl' is not installed: `pip install trl`"
    ):
        check_peers([name])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_none_is_measured() -> None:
    pytest.importorskip("trl", reason="TRL is not installed")
    with pytest.raises(InputError, match="--peer trl-peft: torch finds no CUDA GPU"):
        check_peers(["trl-peft"])


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # theirs
def test_tokens_are_counted_without_padding() -> None:
    pytest.importorskip("trl", reason="TRL is not installed")
    if not torch.cuda.is_available():
        pytest.skip("TRL's loss is a Triton kernel: no GPU")
    packed = Case(
        trainer="trl-peft",
        shape=TINY,
        micro_batch_tokens=1024,
        batch_size=1,
        warm_up=2,
        steps=3,
        device="cuda",
    )
    assert 700 < measure_peer(packed)["tokens_per_step"] <= 1024
