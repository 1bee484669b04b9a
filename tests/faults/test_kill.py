"""A run that is killed again and again, wherever it stands, ends as one that never was."""

import json
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fuzzing import THOROUGH, nightly
from harness import options
from interruptions import EXTRA, manifest_step, outcome, run_folder, same, started, straight_outcome, wait
from warm_process import WarmCommand

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]

MOMENTS = ("step", "validation", "writing", "manifest")


def kill(process: WarmCommand, folder: Path, moment: str, draw: random.Random) -> bool:
    """SIGKILL at the moment; False where the run had come to its end before."""
    logs = folder / "lightning_logs"

    def training() -> bool:
        try:
            run = run_folder(folder)
            return json.loads((run / "run.json").read_text())["pid"] == process.pid and manifest_step(run) > 0
        except (OSError, ValueError):
            return False

    if not wait(process, training):
        return False
    run = run_folder(folder)
    before = manifest_step(run)
    reached: dict[str, Callable[[], bool]] = {
        "step": lambda: True,
        # the checkpoint of an epoch's last step is written as its validation begins
        "validation": lambda: manifest_step(run) != before and manifest_step(run) % 6 == 0,
        "writing": lambda: any((run / "checkpoints").glob(".*.ckpt.[0-9]*.part")),
        "manifest": lambda: any((run / "checkpoints").glob(".*.json.*")) or manifest_step(run) != before,
    }
    assert logs.is_dir()
    if not wait(process, reached[moment]):
        return False
    time.sleep(draw.uniform(0, {"step": 0.6, "validation": 0.1}.get(moment, 0.003)))
    if process.poll() is not None:
        return False
    process.kill()
    return process.wait() == -9


def killed_runs(base: Path, tmp_path: Path, kills: int, seed: int) -> dict[str, int]:
    """Kills runs until so many kills are done, lets each come to its end, and compares; kills by moment."""
    draw = random.Random(seed)
    expected = straight_outcome(base)
    done = dict.fromkeys(MOMENTS, 0)
    attempts = 0
    while sum(done.values()) < kills:
        folder = tmp_path / f"killed_{attempts}"
        folder.mkdir()
        attempts += 1
        words = [*options(base, folder), *EXTRA]
        resume: list[str] = []
        while True:
            process = started([*words, *resume], folder)
            moment = min(MOMENTS, key=lambda one: (done[one], draw.random()))  # each of them as often
            if sum(done.values()) < kills and kill(process, folder, moment, draw):
                done[moment] += 1
                resume = ["--ckpt_path", "last"]
                if json.loads((run_folder(folder) / "run.json").read_text())["state"] == "finished":
                    break  # killed after its end, as the process went away
                continue
            assert process.wait() == 0, (folder / "log.txt").read_text()[-3000:]
            break
        found = outcome(folder)
        for key, value in expected.items():
            assert same(found[key], value), f"{key} of run {attempts}: {done}\n{found[key]}\n{value}"[:3000]
    return done


@nightly  # by day the next test kills runs more than once too
def test_a_run_killed_three_times_ends_bit_for_bit_as_one_that_never_was(
    tiny_bases: dict[str, Path], tmp_path: Path
) -> None:
    assert sum(killed_runs(tiny_bases["llama"], tmp_path, 3, seed=1).values()) == 3


def test_kills_in_steps_validations_and_writing_lose_nothing(
    tiny_bases: dict[str, Path], tmp_path: Path
) -> None:
    kills = 25 if THOROUGH else 5
    done = killed_runs(tiny_bases["llama"], tmp_path, kills, seed=2)
    assert sum(done.values()) == kills
    assert all(done.values()), done
