"""A base whose layers are spread over processes trains and answers as a whole one does.

Real processes on a CPU, with gloo, as in `test_several_processes`.
"""

import shutil
import threading
from copy import deepcopy
from pathlib import Path

import harness
import pytest
import torch
from fuzzing import THOROUGH
from harness import options
from processes import LIMIT_S, assert_same_run, figures, run
from tiny import build_base
from warm_process import WarmProgram

from medqlora.config import ModelOptions
from medqlora.errors import InputError
from medqlora.models import Transformers, Unsloth
from medqlora.models.layers import decoder_layers
from medqlora.models.weight_shares import cut, packed_weights, tensors_of
from medqlora.training.checks.options import check_shared

CPU = torch.device("cpu")
SPREAD = ["--trainer.strategy=fsdp"]
#: with three examples over two processes one has more micro-batches than the other, and more groups of questions
UNEVEN = ["--data.batch_size=3", "--data.micro_batch_tokens=60", "--checkpoint.save_top_k=-1"]
SIZES = {"train": 9, "dev": 7}


@pytest.mark.parametrize("double_quantization", [True, False])
def test_the_parts_of_a_weight_are_the_weight_and_nothing_else_of_it_is_kept(
    double_quantization: bool, tiny_bases: dict[str, Path]
) -> None:
    backend = Transformers(str(tiny_bases["llama"]), double_quantization=double_quantization)
    model = backend.load(lora=None, adapter=None, device=CPU, dtype=torch.float32, seed=0)
    weights = packed_weights(decoder_layers(model)[0])
    assert len(weights) == 7
    for weight in weights:
        copies = [deepcopy(weight) for _ in range(3)]
        shares = [cut(copy, rank, 3) for rank, copy in enumerate(copies)]
        assert all(getattr(*each).numel() == 0 for copy in copies for each in tensors_of(copy))
        assert len({share.part.nbytes for share in shares}) == 1
        buffer = torch.cat([share.part for share in shares])
        originals = [getattr(*each) for each in tensors_of(weight)]
        assert len(originals) == (3 if double_quantization else 2)
        for original, (start, dtype, shape) in zip(originals, shares[0].tensors, strict=True):
            found = buffer[start : start + original.nbytes].view(dtype).view(shape)
            assert found.data_ptr() % 64 == 0
            assert torch.equal(found, original)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shards", "replicas"),
    [(2, 1), pytest.param(2, 2, marks=pytest.mark.skipif(not THOROUGH, reason="every night"))],
)
def test_processes_with_more_and_with_less_to_do_gather_the_same_layers(
    shards: int, replicas: int, tmp_path: Path
) -> None:
    base = build_base(tmp_path / "base", "llama", layers=3)
    logs = [tmp_path / f"{rank}.txt" for rank in range(shards * replicas)]
    program = "import sys, sharded_worker\nsharded_worker.main(*sys.argv[1:3], *map(int, sys.argv[3:]))"
    workers = [
        WarmProgram(program, base, tmp_path / "store", rank, shards, replicas, log=log)
        for rank, log in enumerate(logs)
    ]
    codes = [worker.wait(timeout=LIMIT_S) for worker in workers]
    assert codes == [0] * len(logs), "\n".join(log.read_text() for log in logs)


@pytest.fixture(scope="module")
def alone(tiny_bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of one process, with the whole base."""
    folder = tmp_path_factory.mktemp("alone")
    harness.run("fit", [*options(tiny_bases["llama"], folder, **SIZES), *UNEVEN])
    return folder


def first_checkpoint(run_folder: Path) -> Path:
    (found,) = (run_folder / "checkpoints").glob("epoch0-step3*.ckpt")
    return found


@pytest.mark.slow
def test_a_spread_base_takes_the_same_steps_and_its_checkpoint_goes_on_with_one_process(
    alone: Path, tiny_bases: dict[str, Path], tmp_path: Path
) -> None:
    words = [*options(tiny_bases["llama"], tmp_path, **SIZES), *UNEVEN]
    more = ["--model.lora.dropout=0", "--model.embedding=host", "--model.engine=fused"]
    said = run("fit", [*words, *SPREAD, *more], 2)
    assert "Engine: fused" in said
    assert "each process keeps" in said
    assert "sync_dist" not in said
    assert said.count("Generation: each process gathers the whole base") == 1
    straight, spread = (folder / "lightning_logs" / "version_0" for folder in (alone, tmp_path))
    assert_same_run(straight, spread)
    saved = [torch.load(first_checkpoint(one), weights_only=True) for one in (straight, spread)]
    assert saved[0]["state_dict"].keys() == saved[1]["state_dict"].keys()
    harness.run("fit", [*words, f"--ckpt_path={first_checkpoint(spread)}"])
    assert_same_run(straight, spread)


@pytest.mark.slow
def test_an_architecture_of_the_native_engine_goes_on_from_one_process_with_a_spread_base(
    tiny_bases: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "one").mkdir()
    data = options(tiny_bases["gemma2"], tmp_path, **SIZES)
    words = [*UNEVEN, "--model.backend.gradient_checkpointing=true", "--model.generate=false"]
    harness.run("fit", [*data, *words, f"--trainer.default_root_dir={tmp_path / 'one'}"])
    straight, begun = (folder / "lightning_logs" / "version_0" for folder in (tmp_path / "one", tmp_path))
    shutil.copytree(straight, begun)
    shutil.rmtree(begun / "adapter")
    said = run("fit", [*data, *words, *SPREAD, f"--ckpt_path={first_checkpoint(begun)}"], 2)
    assert "Engine: native" in said
    assert_same_run(straight, begun)


@pytest.mark.slow
def test_the_report_of_a_spread_base_is_that_of_a_whole_one(
    alone: Path, tiny_bases: dict[str, Path], tmp_path: Path
) -> None:
    reports = []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        folder.mkdir()
        words = [*options(tiny_bases["llama"], folder), "--data.micro_batch_tokens=60"]
        words.append(f"--model.adapter={alone / 'lightning_logs' / 'version_0' / 'adapter'}")
        if processes == 1:
            harness.run("test", [*words, "--model.decoding=transformers"])  # as a sharded base has it
        else:
            run("test", [*words, *SPREAD], 2)
        reports.append(figures(folder))
    assert reports[0] == reports[1]


@pytest.mark.slow
def test_a_process_that_checks_a_smaller_pack_than_the_others_trains_on_with_them(
    tiny_bases: dict[str, Path], tmp_path: Path
) -> None:
    words = [*options(tiny_bases["llama"], tmp_path, **SIZES), "--trainer.max_steps=2", *SPREAD]
    words += ["--trainer.callbacks=signal_at.LowersItsBudget", "--trainer.callbacks.rank=1"]
    said = run("fit", [*words, "--data.batch_size=8", "--data.micro_batch_tokens=400"], 2)
    assert "Adapter:" in said


# ---- what is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model.weights=cached"], "--model.weights cached .*: use auto"),
        (["--model.lora.init=eva"], "--model.lora.init eva: .*: use init default"),
        (["--model.backend.quantization=int8"], "--model.backend.quantization is int8: use nf4, or ddp"),
        (["--trainer.strategy=deepspeed_stage_3"], "--trainer.strategy deepspeed_stage_3: .*: use fsdp"),
        (
            ["--trainer.strategy=lightning.pytorch.strategies.FSDPStrategy"],
            "--trainer.strategy .*FSDPStrategy: .*: use fsdp",
        ),
        (
            ["--trainer.strategy=lightning.pytorch.strategies.ModelParallelStrategy"],
            "--trainer.strategy .*ModelParallelStrategy: .*: use fsdp",
        ),
    ],
)
def test_what_a_spread_base_cannot_do_is_refused_with_what_can(
    words: list[str], said: str, tiny_bases: dict[str, Path], tmp_path: Path
) -> None:
    given = options(tiny_bases["llama"], tmp_path)
    with pytest.raises(InputError, match=said):
        harness.run("fit", [*given, "--trainer.devices=2", *SPREAD, *words])


def test_a_backend_that_loads_onto_the_gpu_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"Unsloth loads .*: use --model.backend medqlora.models.Transformers"
    ):
        check_shared(Unsloth("a-base"), ModelOptions())


def test_one_device_has_nothing_to_share_and_says_so(
    tiny_bases: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*options(tiny_bases["llama"], tmp_path), *SPREAD, "--trainer.devices=1", "--trainer.max_steps=1"]
    assert harness.run("fit", [*words, "--trainer.limit_val_batches=0"]).model.shared is None
    assert "there is one device" in capsys.readouterr().out


def test_a_refusal_before_the_processes_have_met_ends_none_of_them_later(
    tiny_bases: dict[str, Path], tmp_path: Path
) -> None:
    before = threading.active_count()
    words = [
        *options(tiny_bases["llama"], tmp_path),
        *SPREAD,
        "--trainer.devices=2",
        "--model.weights=cached",
    ]
    with pytest.raises(InputError, match=r"--model\.weights cached"):
        harness.run("fit", words)
    assert threading.active_count() == before
