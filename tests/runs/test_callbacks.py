"""Memory, throughput and the progress bar: what they say is what happened."""

import json
import re
import time
from pathlib import Path

import pytest
import torch
from harness import options, run
from tensorboard_events import logged
from torch.utils.flop_counter import FlopCounterMode

from medqlora.callbacks import GPUMemory, StepProgress, Throughput, saver_of
from medqlora.cli import main
from medqlora.data.batching.packing import pack
from medqlora.models import Transformers
from medqlora.models.flops import step_flops
from medqlora.records import Encoded


def test_throughput_counts_every_token_and_example_once(
    tiny_bases: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="medqlora")
    began = time.perf_counter()
    cli = run("fit", [*options(tiny_bases["llama"], tmp_path), "--trainer.log_every_n_steps=2"])
    totals = next(one for one in cli.trainer.callbacks if isinstance(one, Throughput)).totals
    tokens = sum(len(example.prompt) + len(example.completion) for example in cli.datamodule.train)
    assert totals["tokens"] == 2 * tokens
    assert totals["examples"] == 2 * 24
    assert totals["steps"] == 12
    speeds = logged(Path(cli.trainer.log_dir), "x-speed/tokens_per_s")
    assert [step for step, _ in speeds] == [1, 3, 5, 7, 9, 11]
    assert all(speed > 0 for _, speed in speeds)
    said = re.search(
        r"Fit: ([\d.]+) s from the first step on \(steps ([\d.]+) s, validation ([\d.]+) s, the rest ([\d.]+) s\); "
        r"([\d.]+) s before",
        caplog.text,
    )
    assert said is not None
    whole, steps, validation, rest, before = map(float, said.groups())
    assert whole == pytest.approx(steps + validation + rest, abs=0.3)
    assert steps + validation > 0  # of a fast machine one is rounded to 0.0
    assert whole + before < time.perf_counter() - began + 0.2


def test_memory_is_recorded_for_each_phase_and_logged(tiny_bases: dict[str, Path], tmp_path: Path) -> None:
    cli = run("fit", [*options(tiny_bases["llama"], tmp_path), "--trainer.max_epochs=1"])
    memory = next(one for one in cli.trainer.callbacks if isinstance(one, GPUMemory))
    assert set(memory.phases) == {"load", "fit", "validate"}
    for phase, figures in memory.phases.items():
        assert 0.05 < figures["resident"] <= figures["peak_of_process"] < 20
        assert phase in memory.table()
    ((_, value),) = logged(Path(cli.trainer.log_dir), "x-memory/load/resident_gib")
    assert value == pytest.approx(memory.phases["load"]["resident"])


def test_the_bar_shows_the_losses_that_were_logged(tiny_bases: dict[str, Path], tmp_path: Path) -> None:
    cli = run("fit", [*options(tiny_bases["llama"], tmp_path), "--trainer.log_every_n_steps=1"])
    bar = next(one for one in cli.trainer.callbacks if isinstance(one, StepProgress))
    last = logged(Path(cli.trainer.log_dir), "train/loss")[-1][1]
    assert float(bar.get_metrics(cli.trainer, cli.model)["loss"]) == pytest.approx(last, rel=1e-3)


def test_a_users_own_model_checkpoint_stands_beside_ours(tiny_bases: dict[str, Path], tmp_path: Path) -> None:
    theirs = "--trainer.callbacks+=lightning.pytorch.callbacks.ModelCheckpoint"
    words = [*options(tiny_bases["llama"], tmp_path), theirs, "--trainer.callbacks.filename=theirs"]
    words += ["--trainer.callbacks.monitor=val/loss", "--trainer.callbacks.mode=min"]
    cli = run("fit", words)
    folder = Path(cli.trainer.log_dir)
    assert (folder / "checkpoints" / "theirs.ckpt").is_file()
    record = json.loads((folder / "run.json").read_text())
    assert record["state"] == "finished"
    assert list(record["best"]) == ["val/accuracy"]
    assert cli.adapter_folder == folder / "adapter"
    first = json.loads((folder / "adapter" / "medqlora.json").read_text())
    assert main(["export", "--ckpt_path", saver_of(cli.trainer).best_model_path]) == 0
    again = json.loads((folder / "adapter" / "medqlora.json").read_text())
    assert {name for name in first if first[name] != again[name]} <= {"created"}
    assert again["created"] >= first["created"]


def test_the_counted_work_of_a_forward_pass_is_torchs_own_count(tiny_bases: dict[str, Path]) -> None:
    """The oracle: torch's FlopCounterMode. A frozen linear layer's forward is half of what a step costs."""
    backend = Transformers(str(tiny_bases["llama"]), quantization="none", attention="eager")
    model = backend.load(
        lora=None, adapter=None, device=torch.device("cpu"), dtype=torch.float32, seed=0
    ).eval()
    example = Encoded("one", list(range(3, 40)), [4, 5, 1])
    batch = pack([example])
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        backend.decoder(model).hidden(batch, batch.rows)
    counted, length = step_flops(model), 40
    linear = counted.linear / 2 * length
    # eager attention computes the whole square, our count the triangle that is used
    square = counted.attention / 3.5 * length * length
    rotary = counter.get_total_flops() - linear - square
    assert 0 <= rotary < 0.01 * counter.get_total_flops()
