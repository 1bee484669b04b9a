"""What a process holds while it trains, written down by a callback."""

import gc
import json
import time
from pathlib import Path
from typing import Any

import psutil
from lightning.pytorch import Callback

EVERY = 500  # steps between two samples


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
