"""`medqlora bench`: one command measures, says what it measured, and stops at what it can't before it begins."""

import csv
import dataclasses
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from harness import refused
from warm_process import warm_workers

from medqlora.cli import main
from medqlora.commands.bench import _cases, parser
from medqlora.profiling import processes
from medqlora.profiling.case import Case
from medqlora.profiling.measure import measure
from medqlora.profiling.shapes import SHAPES

QUICK = [
    "--shape",
    "tiny",
    "--device",
    "cpu",
    "--warm_up",
    "1",
    "--steps",
    "2",
    "--micro_batch_tokens",
    "512",
]


@pytest.fixture
def _warm(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes of the cases are forked from one that has imported torch; every night they begin cold."""
    warm_workers(monkeypatch)


@pytest.mark.slow
def test_it_measures_and_writes_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", *QUICK, "--engine", "fused", "--checkpointing", "none", "--out", str(tmp_path)]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "512 tokens, checkpointing none" in shown
    assert "Attention of fused: torch sdpa" in shown
    (row,) = json.loads((tmp_path / "bench.json").read_text())["rows"]
    assert row["tokens_per_s"] > 0
    assert row["steps"] == 2
    assert row["hardware"]["device"] == "cpu"
    assert row["versions"]["bitsandbytes"]
    assert row["case"]["shape_name"] == "tiny"
    assert (tmp_path / "bench.csv").read_text().count("\n") == 2
    assert (tmp_path / "bench.png").stat().st_size > 1000


@pytest.mark.slow
@pytest.mark.usefixtures("_warm")
def test_two_processes_take_the_same_steps_as_one_and_are_compared_with_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--engine", "fused", "--checkpointing", "none", "--batch_size", "3", "--devices", "2"]
    assert main(["bench", *QUICK, *words, "--out", str(tmp_path)]) == 0
    alone, both = json.loads((tmp_path / "bench.json").read_text())["rows"]
    assert (alone["case"]["devices"], both["case"]["devices"]) == (1, 2)
    same_steps = measure(Case(**{**alone["case"], "batch_size": 6}))  # as many examples, in one process
    assert both["tokens_per_step"] == same_steps["tokens_per_step"]
    assert both["loss"] == pytest.approx(same_steps["loss"], abs=2e-4)
    assert both["loss"] != pytest.approx(alone["loss"], abs=2e-4)
    assert both["tokens_per_s_per_device"] == pytest.approx(both["tokens_per_s"] / 2, abs=0.1)
    assert both["scaling"] == pytest.approx(both["tokens_per_s"] / alone["tokens_per_s"], abs=1e-3)
    assert 0 <= both["quickest_waits"] < 1
    assert both["peak_host_gib"] > 0.05
    assert "scaling" not in alone
    shown = capsys.readouterr().out
    assert "2 × 512 tokens, 2 × 3 a step, checkpointing none" in shown
    assert f"scaling {both['scaling']:.2f} of 2, fastest device idle {both['quickest_waits']:.1%}" in shown
    with (tmp_path / "bench.csv").open(newline="") as file:
        written = list(csv.DictReader(file))
    assert [(row["devices"], row["scaling"]) for row in written] == [("1", ""), ("2", str(both["scaling"]))]


@pytest.mark.slow
@pytest.mark.usefixtures("_warm")
def test_one_base_over_two_processes_takes_the_same_steps_as_two(tmp_path: Path) -> None:
    words = ["--engine", "fused", "--checkpointing", "full", "--devices", "2", "--strategy", "fsdp"]
    # with three examples each, one process may have more micro-batches than the other
    words += ["--batch_size", "3"]
    assert main(["bench", *QUICK, *words, "--out", str(tmp_path)]) == 0
    alone, one = json.loads((tmp_path / "bench.json").read_text())["rows"]
    assert (alone["case"]["strategy"], one["case"]["strategy"]) == ("ddp", "fsdp")
    assert one["setting"] == "2 × 512 tokens, 2 × 3 a step, checkpointing full, sharded"
    two = processes.run_case(Case(**{**one["case"], "strategy": "ddp"}))
    assert one["tokens_per_step"] == two["tokens_per_step"]
    assert one["loss"] == two["loss"]
    assert one["scaling"] == pytest.approx(one["tokens_per_s"] / alone["tokens_per_s"], abs=1e-3)


def test_each_case_of_several_devices_follows_that_of_one_alone() -> None:
    options = parser().parse_args(["--shape", "tiny", "--device", "cpu", "--sweep", "--devices", "4", "2"])
    cases, peers = _cases(options)
    assert peers == []
    assert len(cases) == 2 * 2 * 4 * 3
    for first in range(0, len(cases), 3):
        assert [case.devices for case in cases[first : first + 3]] == [1, 2, 4]
        assert (
            len({dataclasses.replace(case, devices=1).described() for case in cases[first : first + 3]}) == 1
        )


@pytest.mark.slow
@pytest.mark.usefixtures("_warm")
def test_a_sweep_goes_over_every_combination(tmp_path: Path) -> None:
    assert main(["bench", "--sweep", *QUICK, "--out", str(tmp_path)]) == 0
    rows = json.loads((tmp_path / "bench.json").read_text())["rows"]
    assert {(row["case"]["trainer"], row["case"]["checkpointing"]) for row in rows} == {
        (engine, kept) for engine in ("fused", "native") for kept in ("full", "none")
    }


@pytest.mark.slow
@pytest.mark.usefixtures("_warm")
def test_a_configuration_gives_the_shape_without_a_weight(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = tmp_path / "base"
    base.mkdir()
    values = {**SHAPES["tiny"][1], "num_hidden_layers": 1, "quantization_config": {"load_in_4bit": True}}
    (base / "config.json").write_text(json.dumps(values))
    config = tmp_path / "c.yaml"
    config.write_text(
        f"model:\n  backend:\n    class_path: medqlora.models.Transformers\n    init_args:\n      base: {base}\n"
    )
    words = ["bench", "--config", str(config), *QUICK[2:], "--engine", "native", "--checkpointing", "none"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    (row,) = json.loads((tmp_path / "out" / "bench.json").read_text())["rows"]
    assert row["case"]["shape"]["num_hidden_layers"] == 1
    assert row["case"]["shape_name"] == str(base)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--swep"], "did you mean '--sweep'?"),
        (["--shape", "llama"], "invalid choice: 'llama'"),
        (["--steps", "0"], "--steps is 0: it has to be at least 1"),
        (["--warm_up", "0"], "--warm_up is 0"),
        (["--batch_size", "0"], "--batch_size is 0"),
        (["--micro_batch_tokens", "100"], "--micro_batch_tokens 100: it has to be at least 256"),
        (
            ["--checkpointing", "half"],
            "--checkpointing half: it is full, none, offload or a number of layers",
        ),
        (["--checkpointing", "offload"], "--checkpointing offload: the native engine has full and none"),
        (["--shape", "tiny", "--config", "c.yaml"], "both set the shape: keep one"),
        (["--config", "absent.yaml"], "--config absent.yaml: it can't be read"),
        (["--devices", "0"], "--devices 0: it has to be at least 1"),
        (
            ["--devices", "2", "--peer", "all"],
            "--devices 2 and --peer: those trainers are measured on one GPU",
        ),
        (["--strategy", "fsdp", "--engine", "fused"], "--strategy fsdp: one device has nothing to share"),
        (
            ["--strategy", "fsdp", "--devices", "2", "--engine", "fused", "--weights", "cached"],
            "--strategy fsdp: --weights cached would keep every layer on each device: use nf4",
        ),
        (["--only_peers"], "--only_peers: no trainer is named: add --peer all"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_and_nothing_is_run(
    words: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in refused(capsys, "bench", *words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model: {backend: {init_args: {base: nowhere}}}", "there is no nowhere/config.json"),
        ("model: {optimizer: adamw}", "no file sets model.backend.base"),
        ("model: [", "it can't be read"),
    ],
)
def test_a_configuration_without_a_shape_is_told(
    text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text(text)
    assert said in refused(capsys, "bench", "--config", "c.yaml")


@pytest.mark.skipif(importlib.util.find_spec("trl") is not None, reason="TRL is installed")
def test_a_peer_that_is_not_installed_stops_the_command_before_it_measures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    said = refused(capsys, "bench", "--shape", "tiny", "--peer", "all")
    assert "the package 'trl' is not installed" in said


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "pass --shape tiny"),
        (["--shape", "tiny", "--device", "cuda"], "--device cuda: torch finds no CUDA"),
        (
            ["--devices", "2"],
            "--devices 2: torch finds no GPU here: leave it out, or try it with --device cpu",
        ),
    ],
)
def test_without_a_gpu_nothing_large_is_begun(
    words: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in refused(capsys, "bench", *words)
    assert list(tmp_path.iterdir()) == []


def test_help_teaches_and_loads_nothing_heavy() -> None:
    program = (
        "import sys\nfrom medqlora.cli import main\n"
        "try: main(['bench', '--help'])\nexcept SystemExit: pass\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'lightning')))"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "medqlora bench --peer all" in ended.stdout
    assert "medqlora bench --devices 2" in ended.stdout
    for action in parser()._actions:
        assert action.help, action.dest
