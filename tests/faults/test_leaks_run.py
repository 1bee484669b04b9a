"""A fit on a benchmark's test questions: refused, or allowed and told by the adapter, its card and each report."""

import json
from pathlib import Path
from typing import Any

import pytest
from harness import options, questions, refused, run, write_rows

from medqlora.cli import main
from medqlora.data import official_test_ids


@pytest.fixture(scope="module")
def words(tiny_bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The options of a run whose training set holds three of PubMedQA's test questions, and its validation set one."""
    folder = tmp_path_factory.mktemp("leaks")
    made = [*options(tiny_bases["llama"], folder, train=8, dev=4, test=4), "--trainer.max_epochs=1"]
    for name, start, count in (("train", 0, 3), ("dev", 1000, 1)):
        rows = questions({"train": 8, "dev": 4}[name], start)
        for number in range(count):
            rows[number]["id"] = f"PMID_{official_test_ids()[start // 100 + number]}"
        write_rows(folder / f"{name}.jsonl", rows)
    return [*made, "--model.generate=false", "--compare_base=false"]


def test_it_is_refused_with_the_place_the_counts_and_the_option(words: list[str], capsys: Any) -> None:
    line = refused(capsys, "fit", *words, reads=True)
    pmid = official_test_ids()[0]
    assert (
        f"train.jsonl:1: the train set holds the PMID {pmid}, which is in PubMedQA's official test set"
        in line
    )
    assert "(3 of the 8 train records and 1 of the 4 dev records are test questions)" in line
    assert "--data.allow_test_questions true" in line


def test_where_it_is_allowed_the_adapter_its_card_and_every_report_say_so(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    counts = {"PubMedQA": {"train": 3, "validation": 1}}
    told = "3 training and 1 validation records are test questions of PubMedQA"
    cli = run("fit", [*words, "--data.allow_test_questions=true"])
    assert f"WARNING: {told} (--data.allow_test_questions true)" in capsys.readouterr().out
    adapter = Path(cli.trainer.log_dir) / "adapter"
    assert json.loads((adapter / "medqlora.json").read_text())["test_questions"] == counts
    assert f"## Trained on test questions\n\nWARNING: {told}" in (adapter / "README.md").read_text()

    tested = Path(run("test", words).trainer.log_dir)
    printed = capsys.readouterr().out
    assert f"WARNING: {told}" in printed
    assert "WARNING: it was trained on 4 test questions of PubMedQA." in printed.splitlines()
    assert json.loads((tested / "test_report.json").read_text())["trained_on_test_questions"] == counts
    assert "it was trained on 4 test questions of PubMedQA" in (tested / "report.html").read_text()


def test_a_merged_model_still_says_what_it_was_trained_on(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = {"PubMedQA": {"train": 3, "validation": 1}}
    told = "3 training and 1 validation records are test questions of PubMedQA"
    fit = run("fit", [*words, "--data.allow_test_questions=true"])
    merged, adapter = tmp_path / "merged", Path(fit.trainer.log_dir) / "adapter"
    assert main(["merge", "--adapter", str(adapter), "--out", str(merged), "--verify", "false"]) == 0
    assert f"## Trained on test questions\n\nWARNING: {told}" in (merged / "README.md").read_text()

    as_base = [*words, f"--model.backend.base={merged}", "--model.backend.quantization=none"]
    capsys.readouterr()
    tested = Path(run("test", [*as_base, "--model.adapter=none"]).trainer.log_dir)
    assert f"WARNING: {told}" in capsys.readouterr().out
    report = json.loads((tested / "test_report.json").read_text())
    assert report["trained_on_test_questions"] == counts
    train = next(word.partition("=")[2] for word in words if word.startswith("--data.source.train="))
    test = next(word.partition("=")[2] for word in words if word.startswith("--data.source.test="))
    trained = ["--model.adapter=none", f"--data.source.test={train}", f"--data.source.train={test}"]
    line = refused(capsys, "test", *as_base, *trained, reads=True)
    assert "8 of the 8 test questions" in line
    assert "were in its training set" in line

    further = run("fit", [*as_base, "--data.allow_test_questions=true"])
    record = json.loads((Path(further.trainer.log_dir) / "adapter" / "medqlora.json").read_text())
    assert record["test_questions"] == {"PubMedQA": {"train": 6, "validation": 2}}
