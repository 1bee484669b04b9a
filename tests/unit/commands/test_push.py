"""`medqlora push`, against a local stand-in of the Hub's endpoints (`tests/helpers/hub_stand_in.py`)."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from hub_stand_in import HubStandIn

from medqlora.artifacts.hub_card import model_index, with_index
from medqlora.cli import main

#: huggingface_hub 1.33 streams a file in httpx's old way
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
WEIGHTS = bytes(range(256)) * 50
CARD = "---\nbase_model: x/y\nlicense: mit\n---\n\n# An adapter\n"
REPORT = {
    "dataset": "PubMedQA",
    "split": "test",
    "decided_by": "likelihood",
    "n": 500,
    "accuracy": 0.748,
    "accuracy_ci95": [0.7082, 0.7841],
    "macro_f1": 0.55,
    "macro_f1_ci95": [0.5, 0.6],
    "ece": 0.04,
    "adapter_sha256": hashlib.sha256(WEIGHTS).hexdigest(),
}


@pytest.fixture
def adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as `fit` leaves it, and the report of its test."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "lightning_logs" / "version_0" / "adapter"
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes(WEIGHTS)
    (folder / "README.md").write_text(CARD)
    (folder / ".secret").write_text("x")
    run = tmp_path / "lightning_logs" / "version_1"
    run.mkdir()
    (run / "test_report.json").write_text(json.dumps(REPORT))
    (run / "predictions.jsonl").write_text("{}\n")
    return folder


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubStandIn]:
    with HubStandIn() as running:
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        monkeypatch.setenv("HF_TOKEN", "hf_test")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", running.address)
        monkeypatch.setattr("medqlora.artifacts.hub_push._LARGE", 1000)
        yield running


def pushed(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    capsys.readouterr()
    assert main(["push", *words]) == code
    found = capsys.readouterr()
    return found.out if code == 0 else found.err.splitlines()[-1]


def test_an_adapter_arrives_whole_and_private_with_its_tests_figures(
    adapter: Path, hub: HubStandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    text = pushed(capsys, "lightning_logs/version_0", "--to", "me/ward")
    assert "Sent: " in text
    assert hub.repositories == {"me/ward": True}
    assert hub.tokens == {"Bearer hf_test"} or hub.tokens == {
        "Bearer hf_test",
        "None",
    }  # none for the upload itself
    [(name, files)] = hub.commits
    assert name == "me/ward"
    assert files.keys() == {"README.md", "adapter_config.json", "adapter_model.safetensors"}
    assert files["adapter_model.safetensors"] == WEIGHTS
    front = yaml.safe_load(files["README.md"].decode().split("---")[1])
    assert (front["base_model"], front["license"]) == ("x/y", "mit")
    [result] = front["model-index"][0]["results"]
    assert result["dataset"] == {"name": "PubMedQA", "type": "qiaojin/PubMedQA", "split": "test"}
    accuracy = result["metrics"][0]
    assert (accuracy["type"], accuracy["value"]) == ("accuracy", 0.748)
    assert "0.708 to 0.784" in accuracy["name"]
    assert accuracy["args"] == {"n": 500, "ci95": [0.7082, 0.7841]}
    assert (adapter / "README.md").read_text() == CARD  # the folder itself stays as it is


def test_an_interrupted_push_goes_on_without_sending_again_what_arrived(
    adapter: Path, hub: HubStandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    (adapter / "tokenizer.json").write_bytes(b"t" * 5000)
    hub.broken = {hashlib.sha256(b"t" * 5000).hexdigest()}
    line = pushed(capsys, str(adapter), "--to", "me/ward", code=2)
    assert "run the same command again" in line
    assert hub.commits == []  # nothing is shown before all is there
    sent = [request for request in hub.requests if request.startswith("PUT")]
    hub.requests.clear()
    pushed(capsys, str(adapter), "--to", "me/ward")
    again = [request for request in hub.requests if request.startswith("PUT")]
    weights = f"PUT /upload/{REPORT['adapter_sha256']}"
    assert weights in sent
    assert len(again) == 1
    assert weights not in again
    assert hub.commits[0][1]["tokenizer.json"] == b"t" * 5000


def test_a_dry_run_sends_nothing_and_needs_no_token(
    adapter: Path, hub: HubStandIn, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    text = pushed(capsys, str(adapter), "--to", "me/ward", "--dry_run")
    assert "adapter_model.safetensors" in text
    assert ".secret" not in text
    assert "with the test's figures" in text
    assert hub.requests == []
    assert "unset it" in pushed(capsys, str(adapter), "--to", "me/ward", code=2)


def test_what_is_refused(adapter: Path, hub: HubStandIn, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(adapter)
    hub.repositories["me/open"] = False
    assert "is there and public" in pushed(capsys, folder, "--to", "me/open", code=2)
    assert pushed(capsys, folder, "--to", "me/open", "--private", "false")
    hub.refused = True
    assert "the Hub refuses (403)" in pushed(capsys, folder, "--to", "me/other", code=2)
    assert "write OWNER/NAME" in pushed(capsys, folder, "--to", "ward", code=2)
    assert "no folder or file" in pushed(capsys, "gone", "--to", "me/x", code=2)
    (adapter.parents[2] / "empty").mkdir()
    assert "no adapter, merged model or GGUF" in pushed(
        capsys, "lightning_logs/../empty", "--to", "me/x", code=2
    )
    (adapter / "adapter_model.safetensors").write_bytes(WEIGHTS + b"x")
    line = pushed(capsys, folder, "--to", "me/x", "--report", "lightning_logs/version_1", code=2)
    assert "the test of other weights" in line
    (adapter / "link").symlink_to("/etc/hostname")
    assert "leads out of the folder" in pushed(capsys, folder, "--to", "me/x", code=2)


def test_a_merged_model_and_a_gguf_file_are_sent_too(
    adapter: Path, hub: HubStandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    merged = tmp_path / "merged"
    merged.mkdir()
    (merged / "config.json").write_text("{}")
    (merged / "model.safetensors").write_bytes(WEIGHTS)
    record = {"merged": {"adapter_sha256": REPORT["adapter_sha256"]}, "base": "/home/me/base"}
    (merged / "medqlora.json").write_text(json.dumps(record))
    (merged / "merge_report.html").write_text("a question")
    text = pushed(capsys, "merged", "--to", "me/merged")
    assert "Not sent: merge_report.html" in text
    assert "/home/me/base" in text
    assert "merge_report.html" not in hub.commits[-1][1]
    assert "model-index" in hub.commits[-1][1]["README.md"].decode()
    import gguf

    writer = gguf.GGUFWriter(str(tmp_path / "m.gguf"), "llama")
    writer.add_string("medqlora.adapter_sha256", str(REPORT["adapter_sha256"]))
    writer.add_string("general.license", "mit")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    pushed(capsys, "m.gguf", "--to", "me/gguf", "--private", "false")
    files = hub.commits[-1][1]
    assert files.keys() == {"README.md", "m.gguf"}
    front = yaml.safe_load(files["README.md"].decode().split("---")[1])
    assert front["license"] == "mit"
    assert "gguf" in front["tags"]
    assert front["model-index"][0]["results"]
    assert hub.repositories["me/gguf"] is False


def test_the_index_names_every_set_and_what_makes_a_figure_doubtful() -> None:
    suite = {
        "sets": {
            "A": {**REPORT, "dataset": "A"},
            "B": {**REPORT, "dataset": "B", "sample": {"size": 5, "of": 9}},
        }
    }
    [model] = model_index("x", {**REPORT, "suite": suite, "trained_on_test_questions": {"A": {}}})
    names = [result["dataset"]["name"] for result in model["results"]]
    assert names == ["A", "B"]
    words = model["results"][1]["metrics"][0]["name"]
    assert "TRAINED ON TEST QUESTIONS" in words
    assert "of a sample" in words
    free = {**REPORT, "decided_by": "exact_match", "token_f1": 0.3, "token_f1_ci95": [0.2, 0.4]}
    [model] = model_index("x", free)
    assert [metric["name"].split(" (")[0] for metric in model["results"][0]["metrics"]] == ["Token F1"]


def test_a_card_keeps_its_text_and_gets_one_index() -> None:
    once = with_index(CARD, [{"name": "a"}])
    twice = with_index(once, [{"name": "b"}])
    assert yaml.safe_load(twice.split("---")[1])["model-index"] == [{"name": "b"}]
    assert twice.endswith("---\n\n# An adapter\n")
    assert with_index(CARD, []) == CARD
    assert with_index("# bare\n", [{"name": "a"}]).endswith("\n# bare\n")
