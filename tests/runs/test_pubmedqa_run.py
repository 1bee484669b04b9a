"""The whole of PubMedQA through `fit` and `test`, with the demo's base."""

import json
from pathlib import Path

import pytest
from fuzzing import THOROUGH
from harness import run

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_450_records_are_trained_on_and_the_500_official_ones_are_tested(
    pubmedqa_file: Path, official_test_ids: list[str], tmp_path: Path
) -> None:
    words = [f"--config={ROOT / 'configs' / 'demo.yaml'}", "--data.source=medqlora.data.PubMedQA"]
    words += [f"--data.source.path={pubmedqa_file}", f"--trainer.default_root_dir={tmp_path}"]
    # contexts are cut for speed: the demo's tokenizer takes many more tokens for them than Llama-3's
    epoch = 450 // 8 + 1
    words += ["--data.max_prompt_tokens=160", "--trainer.max_epochs=1", "--progress.refresh_rate=0"]
    steps = epoch if THOROUGH else 6
    fit = run("fit", [*words, "--model.generate=false", f"--trainer.max_steps={steps}"])
    assert len(fit.datamodule.train) == 450
    assert len(fit.datamodule.dev) == 50
    assert fit.trainer.num_training_batches == epoch
    assert fit.trainer.global_step == steps

    test = run("test", [*words, "--model.generate=false", "--compare_base=false"])
    folder = Path(test.trainer.log_dir)
    lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert sorted(line["id"] for line in lines) == sorted(official_test_ids)
    report = json.loads((folder / "test_report.json").read_text())
    assert report["n"] == 500
    assert report["majority_accuracy"] == pytest.approx(0.552)
    assert report["human_accuracy"] == pytest.approx({"reasoning_required": 0.780, "reasoning_free": 0.904})
    assert report["dataset"] == "PubMedQA"

    # PubMedQA's own rules: a label for exactly the test PMIDs; accuracy is the share that is right
    official = json.loads((folder / "predictions_official.json").read_text())
    truth = json.loads(pubmedqa_file.with_name("test_ground_truth.json").read_text())
    assert set(official) == set(truth)
    assert sum(official[pmid] == truth[pmid] for pmid in truth) / 500 == pytest.approx(report["accuracy"])
