"""A fit and a test on questions with free answers, as a user runs them."""

import json
from pathlib import Path
from typing import Any

import pytest
from harness import options

from medqlora.cli import main


def test_free_answers_choose_their_checkpoint_by_token_f1_and_are_reported_by_it(
    tiny_bases: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*options(tiny_bases["llama"], tmp_path), "--data.source.labels=[]"]
    # at a rate of 0 both epochs give the same scores: of equal ones the earlier is kept
    assert main(["fit", *words, "--model.learning_rate=0"]) == 0
    printed = capsys.readouterr().out
    assert "the best checkpoint is the one of the highest val/token_f1" in printed
    assert "Best val/token_f1: " in printed
    run = tmp_path / "lightning_logs" / "version_0"
    assert sorted(path.name for path in (run / "checkpoints").glob("epoch*.ckpt")) == ["epoch0-step6.ckpt"]
    record: dict[str, Any] = json.loads((run / "adapter" / "medqlora.json").read_text(encoding="utf-8"))
    assert {"val/token_f1", "val/rouge_l", "val/accuracy"} <= set(record["scores"])
    assert record["chosen_by"]["score"] == "val/token_f1"

    assert main(["test", *words]) == 0
    printed = capsys.readouterr().out
    assert "token F1" in printed
    tested = tmp_path / "lightning_logs" / "version_1"
    report = json.loads((tested / "test_report.json").read_text(encoding="utf-8"))
    low, high = report["token_f1_ci95"]
    assert 0 <= low <= report["token_f1"] <= high <= 1
    assert report["base"]["token_f1"] == pytest.approx(report["token_f1"])  # nothing was learned
    assert (tested / "report.html").read_text(encoding="utf-8").count("<article>") == 9
