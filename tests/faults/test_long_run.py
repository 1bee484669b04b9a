"""A long run takes no more memory, files and threads than a short one."""

import gc
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from harness import options
from import_path import import_path
from lightning.pytorch import Callback
from tiny import build_base

STEPS = 10_000
EVERY = 500  # steps between two samples
MIB = 2**20


class Watcher(Callback):
    """Writes what the process holds, every `EVERY` steps, a line each.

    Args:
        path: the file to write.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.process = psutil.Process()

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        if trainer.global_step % EVERY:
            return
        gc.collect()
        held = {
            "step": trainer.global_step,
            "rss": self.process.memory_info().rss,
            "files": self._files(),
            "threads": self.process.num_threads(),
        }
        with Path(self.path).open("a", encoding="utf-8") as file:
            file.write(json.dumps(held) + "\n")

    def _files(self) -> int:
        """The fewest of a few counts: TensorBoard's thread opens its file for a moment at every flush."""
        counts = []
        for _ in range(20):
            counts.append(self.process.num_fds())
            time.sleep(0.005)
        return min(counts)


@pytest.mark.slow
def test_ten_thousand_steps_grow_by_less_than_20_mb_and_open_no_file_and_no_thread(tmp_path: Path) -> None:
    """The whole command with its loggers, callbacks and checkpoints, in a process of its own: memory that
    earlier tests gave back would hide what is lost."""
    base = build_base(tmp_path / "base", layers=1)
    samples = tmp_path / "samples.jsonl"
    words = [
        *options(base, tmp_path, train=EVERY, dev=0, test=0),
        "--data.source.dev_fraction=0",
        "--data.batch_size=1",
        f"--trainer.max_epochs={STEPS // EVERY}",  # each ends with a checkpoint
        f"--trainer.callbacks={__name__}.Watcher",
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
    for what in ("files", "threads"):
        assert max(one[what] for one in held) <= first[what], [one[what] for one in held]
