"""`medqlora test --gguf`: the full report, paired with the live adapter."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from exporting import export_words, last_line, left, report_of
from harness import refused, run

from medqlora.artifacts.live_report import find_live_report
from medqlora.cli import main
from medqlora.inference.predictor import Predictor

gguf = pytest.importorskip("gguf", reason="the extra [gguf] is not installed")
pytest.importorskip("xllamacpp", reason="the extra [gguf] is not installed")


def test_test_reports_a_gguf_file_beside_the_live_adapter(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tensorboard_events import logged

    out, logs = tmp_path / "model.gguf", tmp_path / "logs"
    assert main(export_words("gguf", adapter, out, "--verify", "false")) == 0
    words = ["test", "--gguf", str(out), "--model.adapter", str(adapter), "--logs", str(logs)]
    words += ["--device", "cpu"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "Against the live adapter" in shown
    assert "  live adapter" in shown
    folder = logs / "version_0"
    written = left(folder)
    assert written.pop(1).startswith("events.out.tfevents")
    assert written == [
        "comparison.json",
        "predictions.jsonl",
        "predictions_official.json",
        "report.html",
        "test_report.json",
    ]
    report, compared = report_of(folder / "test_report.json"), report_of(folder / "comparison.json")
    assert report["n"] == compared["n"] == 9
    assert report["accuracy"] == compared["exported_accuracy"] == report["live"]["exported_accuracy"]
    assert compared["largest_difference"] == report["live"]["largest_difference"] < 0.02
    assert compared["limits"]["difference"] == 0.02
    assert "Against the live adapter" in (folder / "report.html").read_text()
    assert list(report["gguf"].values()) == [
        *(out.stat().st_size, "F16", "llama", hashlib.sha256(out.read_bytes()).hexdigest())
    ]
    assert report["gguf"]["sha256"] in (folder / "report.html").read_text()
    (_, accuracy) = logged(folder, "x-test/accuracy")[0]
    assert accuracy == pytest.approx(report["accuracy"], abs=1e-6)
    assert logged(folder, "x-test/live_accuracy")[0][1] == pytest.approx(
        report["live"]["live_accuracy"], abs=1e-6
    )
    assert "the test report of an exported model" in last_line(capsys, *words, "--live", str(folder))
    assert find_live_report(logs, report["adapter_sha256"]) is None
    capsys.readouterr()
    assert main(["runs", str(logs)]) == 0
    assert "version_0  test" in capsys.readouterr().out
    assert "there is no file" in refused(capsys, "test", "--gguf", "no.gguf", "--adapter", str(adapter))
    train = adapter.parents[2] / "train.jsonl"
    line = last_line(capsys, *words, "--questions", str(train))
    assert line.startswith(f"medqlora: error: --adapter {adapter}: 24 of the 24 test questions")

    record = json.loads((adapter / "medqlora.json").read_text())
    leaked = shutil.copytree(adapter, tmp_path / "leaked")
    record["test_questions"] = {"PubMedQA": {"train": 3, "validation": 1}}
    (leaked / "medqlora.json").write_text(json.dumps(record))
    (leaked / "manifest.json").unlink()  # it knows the record's digest
    words[words.index(str(adapter))] = str(leaked)
    assert main(words) == 0
    assert "WARNING: 3 training and 1 validation records are test questions" in capsys.readouterr().out
    report = report_of(logs / "version_1" / "test_report.json")
    assert report["trained_on_test_questions"] == record["test_questions"]


def test_a_gguf_file_is_compared_with_the_live_adapters_own_test(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_folder = adapter.parents[2]
    words = [f"--config={run_folder / 'config.yaml'}", f"--data.source.train={run_folder / 'train.jsonl'}"]
    words += [f"--data.source.test={run_folder / 'test.jsonl'}", f"--trainer.default_root_dir={tmp_path}"]
    base = json.loads((adapter / "medqlora.json").read_text())["base"]
    words += [f"--model.backend.base={base}", f"--model.adapter={adapter}"]
    live = Path(run("test", words).trainer.log_dir)
    out, asked = tmp_path / "model.gguf", []
    assert main(export_words("gguf", adapter, out, "--verify", "false")) == 0
    tested = ["test", "--gguf", str(out), "--logs", str(adapter.parents[1]), "--live"]
    with (
        pytest.MonkeyPatch.context() as patch
    ):  # neither the adapter's folder is named, nor the adapter asked
        patch.setattr(Predictor, "load", lambda *words, **options: asked.append(words))
        assert main([*tested, str(live)]) == 0
    assert not asked
    assert f"Made from the adapter {adapter}" in capsys.readouterr().out
    newest = max(adapter.parents[1].iterdir(), key=lambda path: path.stat().st_mtime_ns)
    report = report_of(newest / "test_report.json")
    assert report["live"]["source"] == str(live)
    assert report["live"]["live_accuracy"] == report_of(live / "test_report.json")["accuracy"]
    assert 0 < report["live"]["largest_difference"] < 0.02
    assert "holds no test report" in last_line(capsys, *tested, str(tmp_path))
    other = report_of(live / "test_report.json")
    (live / "test_report.json").write_text(json.dumps({**other, "adapter_sha256": "0"}))
    assert "the report of another adapter" in last_line(capsys, *tested, str(live))
    (live / "test_report.json").write_text(json.dumps({**other, "prompt_sha256": "0"}))
    assert "asked with another prompt" in last_line(capsys, *tested, str(live))
    (live / "test_report.json").write_text(json.dumps(other))
    (live / "predictions.jsonl").write_text("")
    assert "no label scores of question" in last_line(capsys, *tested, str(live))
