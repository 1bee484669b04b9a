"""Runs that share a machine: two that start together, and one that gets a single slow processor."""

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from harness import options
from safetensors.torch import load_file
from warm_process import WarmCommand

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def started(words: list[str], folder: Path) -> WarmCommand:
    return WarmCommand(["fit", *words], cwd=folder, log=folder / f"{uuid.uuid4().hex}.txt")


def ended(process: WarmCommand) -> str:
    code = process.wait(timeout=500)
    shown = process.log.read_text(encoding="utf-8")
    assert code == 0, shown
    return shown


def finished(run: Path) -> bool:
    whole = (run / "adapter" / "adapter_model.safetensors").is_file()
    return whole and json.loads((run / "run.json").read_text())["state"] == "finished"


def test_two_fits_that_start_together_end_well_each_in_its_own_folder(
    tiny_bases: dict[str, Path], tmp_path: Path
) -> None:
    words = options(tiny_bases["llama"], tmp_path)
    both = [started([*words, f"--seed_everything={seed}"], tmp_path) for seed in (1, 2)]
    shown = [ended(one) for one in both]
    logs = tmp_path / "lightning_logs"
    assert sorted(one.name for one in logs.iterdir()) == ["version_0", "version_1"]
    runs = [next(run for run in logs.iterdir() if str(run.name) in text) for text in shown]
    assert runs[0] != runs[1]
    assert all(finished(run) for run in runs)
    for run, seed in zip(runs, (1, 2), strict=True):  # neither wrote into the other's
        assert f"seed_everything: {seed}\n" in (run / "config.yaml").read_text()
        events = list(run.glob("events.out.tfevents.*"))
        assert len(events) == 1
    alone = tmp_path / "alone"
    alone.mkdir()
    own = [*words, "--seed_everything=1", f"--trainer.default_root_dir={alone}"]
    ended(started(own, tmp_path))
    together, by_itself = (
        load_file(run / "adapter" / "adapter_model.safetensors")
        for run in (runs[0], alone / "lightning_logs" / "version_0")
    )
    assert together.keys() == by_itself.keys()
    assert all(together[name].equal(by_itself[name]) for name in together)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="of a system that can bind processors")
def test_a_fit_on_one_processor_that_others_use_too_ends_well(
    tiny_bases: dict[str, Path], tmp_path: Path
) -> None:
    one = sorted(os.sched_getaffinity(0))[0]
    bound = f"import os; os.sched_setaffinity(0, {{{one}}})"
    busy = subprocess.Popen([sys.executable, "-c", f"{bound}\nwhile True: pass"])
    try:
        words = [*options(tiny_bases["llama"], tmp_path, train=12), "--trainer.max_epochs=1"]
        process = started(words, tmp_path)
        os.sched_setaffinity(process.pid, {one})
        shown = ended(process)
    finally:
        busy.kill()
        busy.wait()
    assert "Adapter: " in shown
    assert finished(tmp_path / "lightning_logs" / "version_0")
