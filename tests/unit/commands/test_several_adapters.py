"""`medqlora test` over several adapters: each with its own report, and one over all of them."""

import json
import statistics
from pathlib import Path

import pytest
from harness import options, run

from medqlora.cli import main
from medqlora.commands.on_one_base import same_weights
from medqlora.commands.test import split_adapters
from medqlora.models.weight_files import ADAPTER_WEIGHTS


@pytest.mark.parametrize(
    ("words", "kept", "adapters"),
    [
        (["--a=1"], ["--a=1"], []),
        (["--model.adapter", "x", "--b", "2"], ["--b", "2"], ["x"]),
        (["--model.adapter=x", "--model.adapter=y"], [], ["x", "y"]),
        (["--model.adapter", "x", "y", "z", "--b=1"], ["--b=1"], ["x", "y", "z"]),
        (["--b", "1", "--model.adapter", "x", "y"], ["--b", "1"], ["x", "y"]),
        (["--model.adapter"], ["--model.adapter"], []),
    ],
)
def test_adapters_are_named_one_by_one_or_together(
    words: list[str], kept: list[str], adapters: list[str]
) -> None:
    assert split_adapters(words) == (kept, adapters)


def test_seeds_are_tested_each_and_put_together(
    tiny_bases: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*options(tiny_bases["llama"], tmp_path), "--trainer.max_epochs=1", "--model.generate=false"]
    for seed in (0, 1):
        run("fit", [*words, f"--data.seed={seed}"])
    root = tmp_path / "lightning_logs"
    adapters = [str(root / f"version_{number}" / "adapter") for number in (0, 1)]
    capsys.readouterr()
    assert main(["test", *words, "--model.adapter", *adapters]) == 0
    each = [json.loads((root / f"version_{n}" / "test_report.json").read_text()) for n in (2, 3)]
    assert [one["adapter"] for one in each] == adapters
    whole = json.loads((root / "version_4" / "aggregate_report.json").read_text())
    assert whole["adapters"] == adapters
    assert whole["accuracy"]["each"] == [one["accuracy"] for one in each]
    assert whole["accuracy"]["mean"] == pytest.approx(statistics.fmean(one["accuracy"] for one in each))
    assert whole["nll"]["sd"] == pytest.approx(statistics.stdev(one["nll"] for one in each))
    assert (root / "version_4" / "aggregate.html").is_file()
    assert "version_4" in capsys.readouterr().out


def test_a_missing_or_repeated_adapter_is_told_before_the_first_is_tested(
    tiny_bases: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*options(tiny_bases["llama"], tmp_path), "--trainer.max_epochs=1"]
    run("fit", words)
    adapter = str(tmp_path / "lightning_logs" / "version_0" / "adapter")
    for wrong, message in (
        ("nowhere", "'nowhere' holds no adapter_config.json (there is no such folder)"),
        (adapter, "given twice"),
    ):
        assert main(["test", *words, "--model.adapter", adapter, wrong]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "lightning_logs" / "version_1").exists()


def test_members_with_the_same_weights_are_found_whatever_their_folders_are_named(tmp_path: Path) -> None:
    """As of two fits that differ in `seed_everything` alone, which draws nothing of an adapter."""
    for name, content in (("a", b"one"), ("b", b"two"), ("copy of a", b"one"), ("c", b"longer")):
        (tmp_path / name).mkdir()
        (tmp_path / name / ADAPTER_WEIGHTS).write_bytes(content)
    a, b, copy, c = (str(tmp_path / name) for name in ("a", "b", "copy of a", "c"))
    assert same_weights([a, b, copy, c]) == [[a, copy]]
    assert same_weights([a, b, c]) == same_weights([a]) == []
