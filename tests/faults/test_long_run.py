"""A long run takes no more memory, files and threads than a short one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fuzzing import THOROUGH
from harness import options
from import_path import import_path
from tiny import build_base
from watcher import EVERY

STEPS = 10_000 if THOROUGH else 1_500
MIB = 2**20


@pytest.mark.slow
def test_thousands_of_steps_grow_by_less_than_20_mb_and_open_no_file_and_no_thread(tmp_path: Path) -> None:
    """The whole command with its loggers, callbacks and checkpoints, in a process of its own: memory that
    earlier tests gave back would hide what is lost."""
    base = build_base(tmp_path / "base", layers=1)
    samples = tmp_path / "samples.jsonl"
    words = [
        *options(base, tmp_path, train=EVERY, dev=0, test=0),
        "--data.source.dev_fraction=0",
        "--data.batch_size=1",
        f"--trainer.max_epochs={STEPS // EVERY}",  # each ends with a checkpoint
        "--trainer.callbacks=watcher.Watcher",
        f"--trainer.callbacks.path={samples}",
    ]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": import_path(),
    }
    done = subprocess.run(
        [sys.executable, "-m", "medqlora", "fit", *words], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    held = [json.loads(line) for line in samples.read_text().splitlines()]
    assert [one["step"] for one in held] == list(range(EVERY, STEPS + 1, EVERY))
    first = held[0]
    grown = [(one["rss"] - first["rss"]) / MIB for one in held]
    assert max(grown) < 20, [round(one, 1) for one in grown]
    # the first sample is older than the first checkpoint, which starts the thread that writes them all
    for what in ("files", "threads"):
        assert max(one[what] for one in held[1:]) <= held[1][what], [one[what] for one in held]
    assert held[1]["threads"] <= first["threads"] + 1
