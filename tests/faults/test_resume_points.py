"""From every checkpoint that a run ever wrote, a resumed one ends as it did."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from harness import options, run
from interruptions import EXTRA, outcome, same

from medqlora.callbacks import CheckpointFiles


@pytest.mark.slow
def test_every_checkpoint_of_a_run_leads_to_the_same_end(
    tiny_bases: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, kept = tmp_path / "first", tmp_path / "kept"
    first.mkdir()
    words = [*options(tiny_bases["llama"], first), *EXTRA, "--trainer.max_epochs=2"]
    save = CheckpointFiles.save_checkpoint

    def save_and_keep(self: Any, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        save(self, checkpoint, path, storage_options)
        self.settle()
        number = len(list(kept.glob("*"))) if kept.exists() else 0
        shutil.copytree(first, kept / f"{number:02}_{checkpoint['global_step']}_{Path(path).stem}")

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointFiles, "save_checkpoint", save_and_keep)
        run("fit", words)
    expected = outcome(first)
    points = sorted(kept.iterdir())
    # steps 2, 4, then before the validation of step 6, its best, after it; 8, 10; the same of step 12
    assert len(points) >= 9
    wrong = []
    for folder in points:
        (last,) = (folder / "lightning_logs").rglob(folder.name.split("_", 2)[2] + ".ckpt")
        here = [*options(tiny_bases["llama"], folder), *EXTRA, "--trainer.max_epochs=2"]
        run("fit", [*here, f"--ckpt_path={last}"])
        found = outcome(folder)
        wrong += [(folder.name, key) for key in expected if not same(found[key], expected[key])]
        if not same(found["curve"], expected["curve"]):
            a, b = found["curve"], expected["curve"]
            wrong += [(tag, a.get(tag), b.get(tag)) for tag in b if a.get(tag) != b.get(tag)]
    assert not wrong, wrong
