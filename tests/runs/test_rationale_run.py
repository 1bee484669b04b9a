"""A fit and a test whose decisions follow their rationale."""

import json
from pathlib import Path

import pytest
from harness import options, refused, run


def test_a_decision_is_scored_after_the_generated_rationale(
    tiny_bases: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*options(tiny_bases["llama"], tmp_path, train=8, dev=3, test=3), "--data.rationale=before"]
    fit = run("fit", [*words, "--trainer.max_epochs=1"])
    record = json.loads((fit.adapter_folder / "medqlora.json").read_text("utf-8"))
    assert record["prompt"]["name"] == "medical+rationale_first"
    test = run("test", [*words, f"--model.adapter={fit.adapter_folder}"])
    assert test.report.scores.n == 3
    lines = [json.loads(line) for line in next(tmp_path.rglob("predictions.jsonl")).read_text().splitlines()]
    assert all(line["text"] is not None and line["logprobs"] for line in lines)
    assert "--model.generate false" in refused(capsys, "fit", *words, "--model.generate=false")
