"""The other commands, through the executable: full, validate, predict, test of a checkpoint."""

import json
from pathlib import Path

import pytest
from harness import options, run

from medqlora.cli import main


@pytest.fixture
def words(tiny_bases: dict[str, Path], tmp_path: Path) -> list[str]:
    return [*options(tiny_bases["llama"], tmp_path), "--trainer.max_epochs=1"]


def test_full_trains_tests_the_best_adapter_and_ends_with_one_summary(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["full", *words]) == 0
    printed = capsys.readouterr().out
    summary = printed[printed.index("\nSummary\n") :]
    report = json.loads((tmp_path / "lightning_logs" / "version_1" / "test_report.json").read_text())
    assert f"accuracy   {report['accuracy']:.1%}" in summary
    assert str(tmp_path / "lightning_logs" / "version_0" / "adapter") in summary
    assert report["adapter"] == str(tmp_path / "lightning_logs" / "version_0" / "adapter")


def test_validate_gives_the_scores_that_the_fit_logged_for_its_best_adapter(words: list[str]) -> None:
    fit = run("fit", words)
    again = run("validate", words)
    for name, value in again.trainer.callback_metrics.items():
        assert float(value) == pytest.approx(float(fit.trainer.callback_metrics[name]), rel=1e-5), name


def test_a_checkpoint_and_the_adapter_that_was_exported_from_it_test_alike(words: list[str]) -> None:
    fit = run("fit", words)
    by_adapter = run("test", words)
    by_checkpoint = run("test", [*words, f"--ckpt_path={fit.trainer.checkpoint_callback.best_model_path}"])
    for one, other in zip(by_adapter.model.heard[0].test, by_checkpoint.model.heard[0].test, strict=True):
        assert one.id == other.id
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)


def test_the_base_without_its_adapter_answers_as_the_bare_base(words: list[str]) -> None:
    run("fit", words)
    compared = run("test", words).model.heard[0].base
    bare = run("test", [*words, "--model.adapter=none"]).model.heard[0].test
    assert [one.logprobs for one in compared] == [pytest.approx(one.logprobs, abs=1e-5) for one in bare]
