"""A fit and a test on questions with free answers, as a user runs them."""

import json
from pathlib import Path
from typing import Any

import pytest
from harness import options, run, write_rows

from medqlora.callbacks import saver_of
from medqlora.cli import main


def test_free_answers_choose_their_checkpoint_by_token_f1_and_are_reported_by_it(
    tiny_bases: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*options(tiny_bases["llama"], tmp_path), "--data.source.labels=[]"]
    # at a rate of 0 both epochs give the same scores and losses: of equal ones the earlier is kept
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


@pytest.mark.parametrize("kept", [1, -1])
def test_of_equal_token_f1_the_checkpoint_of_the_lowest_loss_is_the_best(
    kept: int, tiny_bases: dict[str, Path], tmp_path: Path
) -> None:
    words = [*options(tiny_bases["llama"], tmp_path, test=0), "--data.source.labels=[]"]
    for name in ("train", "dev"):  # no token is a whole word of it: the token F1 of one token is 0
        path = tmp_path / f"{name}.jsonl"
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        write_rows(path, [{**row, "answer": "zzzz qqqq"} for row in rows])
    cli = run("fit", [*words, "--model.max_new_tokens=1", f"--checkpoint.save_top_k={kept}"])
    saver = saver_of(cli.trainer)
    assert saver.best_model_score == 0
    assert Path(saver.best_model_path).name == "epoch1-step12.ckpt"  # the loss fell
    files = sorted(path.name for path in (tmp_path / "lightning_logs/version_0/checkpoints").glob("epoch*"))
    assert len([name for name in files if name.endswith(".ckpt")]) == (1 if kept == 1 else 2)
    record = json.loads(
        (tmp_path / "lightning_logs/version_0/adapter/medqlora.json").read_text(encoding="utf-8")
    )
    assert record["training"]["step"] == 12
