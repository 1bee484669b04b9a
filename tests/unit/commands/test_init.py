"""`medqlora data` and `medqlora init`: from a file to a look, and to a configuration that `fit` takes."""

import json
import os
import sys
import threading
from pathlib import Path

import pytest
import yaml

from medqlora.cli import main
from medqlora.commands.first_config import Draft, suggested_bases
from medqlora.commands.machine import GIB, Machine
from medqlora.config.check import check_options
from medqlora.data.sources.recognised import Recognised, recognised
from medqlora.errors import InputError

ANSWERS = ("yes", "no", "maybe")


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows(count: int, start: int = 0) -> str:
    listed = [
        {
            "id": f"q{number}",
            "question": f"Does drug {number} help?",
            "context": f"It did {number}.",
            "answer": answer,
        }
        for number in range(start, start + count)
        for answer in [ANSWERS[number % 3]]
    ]
    return "".join(json.dumps(row) + "\n" for row in listed)


@pytest.fixture
def ward(own_folder: Path) -> Path:
    (own_folder / "ward.jsonl").write_text(rows(30) + rows(1).replace('"q0"', '"again"'))
    return own_folder / "ward.jsonl"


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(list(words)) == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_a_look_prints_a_table_and_writes_a_page(
    ward: Path, tiny_bases: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    base = str(tiny_bases["llama"])
    assert main(["data", "ward.jsonl", "--base", base]) == 0
    text = capsys.readouterr().out
    assert "again (train)" in text or "again (validation)" in text
    assert "Page:    data_look.html" in text
    assert "loss mask" in Path("data_look.html").read_text()
    assert main(["data", "ward.jsonl", "--base", base, "--json", "--data.max_prompt_tokens=28"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["max_prompt_tokens"] == 28
    assert found["sets"]["train"]["questions"] + found["sets"]["dev"]["questions"] == 31
    assert found["sets"]["train"]["shortened"] > 0
    Path("notes.html").write_text("<p>mine")
    assert "name another" in refused(capsys, "data", "ward.jsonl", "--page", "notes.html")
    assert Path("notes.html").read_text() == "<p>mine"


def test_init_writes_a_configuration_that_fit_takes(
    ward: Path, tiny_bases: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("test.jsonl").write_text(rows(6, 100))
    words = [
        "init",
        "ward.jsonl",
        "--base",
        str(tiny_bases["llama"]),
        "--test",
        "test.jsonl",
        "--epochs",
        "1",
    ]
    assert (
        main([*words, "--out", "ward.yaml", "--model.lora.r=4", "--data.source.labels", "[yes, no, maybe]"])
        == 0
    )
    assert "Wrote ward.yaml" in capsys.readouterr().out
    options = yaml.safe_load(Path("ward.yaml").read_text())
    assert options["model"]["lora"]["r"] == 4
    assert options["data"]["source"]["init_args"]["test"] == "test.jsonl"
    assert options["data"]["max_prompt_tokens"] == 256
    assert main(["fit", "--config", "ward.yaml", "--trainer.fast_dev_run=true"]) == 0
    assert "is there already" in refused(capsys, *words, "--out", "ward.yaml")


def test_on_a_terminal_it_asks_at_most_five_questions_and_enter_takes_the_default(
    ward: Path, tiny_bases: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    master, slave = os.openpty()
    os.write(master, f"{tiny_bases['llama']}\n\nmany\n20\n\nmine.yaml\n".encode())
    shown: list[bytes] = []

    def read() -> None:
        try:
            while part := os.read(master, 4096):
                shown.append(part)
        except OSError:
            return

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    name = Path(os.ttyname(slave))
    with (
        name.open(encoding="utf-8") as stdin,
        name.open("w", encoding="utf-8") as stdout,
        monkeypatch.context() as patch,
    ):
        patch.setattr(sys, "stdin", stdin)
        patch.setattr(sys, "stdout", stdout)
        assert main(["init", "ward.jsonl"]) == 0
        stdout.flush()
    os.close(slave)
    reader.join(240)
    os.close(master)
    text = b"".join(shown).decode()
    assert text.count("? ") - text.count("many: give a whole number") <= 5 + 1  # one was asked again
    assert "many: give a whole number" in text
    assert "medqlora test --config mine.yaml --data.source.test FILE  #" in text, "can be pasted into a shell"
    assert yaml.safe_load(Path("mine.yaml").read_text())["data"]["train_samples"] == 20


def test_wrong_words_are_one_line(ward: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no file or folder gone.csv" in refused(capsys, "init", "gone.csv")
    assert "no file or folder gone.csv" in refused(capsys, "data", "gone.csv")
    assert "the data are missing" in refused(capsys, "data")
    assert "give at least 1" in refused(capsys, "init", "ward.jsonl", "--epochs", "0")
    assert "reads none" in refused(capsys, "init", "ward.jsonl", "--config", "x.yaml")
    assert "--test: there is no file" in refused(capsys, "init", "ward.jsonl", "--test", "gone.csv")
    assert "has its own test set" in refused(capsys, "init", "demo", "--test", "ward.jsonl", "--yes")
    assert "let its name end in .yaml" in refused(capsys, "init", "ward.jsonl", "--out", "x")
    assert "did you mean" in refused(capsys, "data", "ward.jsonl", "--data.batch_sise", "4")
    assert "did you mean h200" in refused(capsys, "init", "ward.jsonl", "--gpu", "h2000", "--yes")
    assert not Path("medqlora.yaml").exists()


@pytest.mark.parametrize(
    ("gpu", "memory_gib", "ampere"),
    [(None, 0, None), ("t4", 15, False), ("l4", 22, True), ("small", 3, None)],
)
@pytest.mark.parametrize("rank", [0, -1])
def test_every_draft_has_options_that_fit_takes(
    gpu: str | None, memory_gib: int, ampere: bool | None, rank: int, own_folder: Path
) -> None:
    machine = Machine(gpu, memory_gib * GIB, ampere, 8 * GIB, 50 * GIB, here=False)
    base = suggested_bases(machine)[rank][0]
    source = Recognised("medqlora.data.JSONLines", {"train": "odd: name # 1.csv"})
    more = ["--data.source.labels", "{0: no, 1: yes}", "--trainer.max_steps", "3", "--data.prompt=chat"]
    text = Draft(source, base, machine, train_samples=5, more=more).text(["a", "", "b"])
    Path("c.yaml").write_text(text)
    check_options("fit", ["--config", "c.yaml"])
    options = yaml.safe_load(text)
    assert options["data"]["source"]["init_args"]["train"] == "odd: name # 1.csv"
    assert options["data"]["source"]["init_args"]["labels"] == {0: False, 1: True}
    assert options["trainer"]["accelerator"] == ("cpu" if gpu is None or base == "demo" else "gpu")


def test_files_are_recognised(own_folder: Path) -> None:
    assert recognised("pubmedqa", "init") == ("medqlora.data.PubMedQA", {})
    (own_folder / "ori.json").write_text('{"1": {"QUESTION": "x", "final_decision": "yes"}}')
    assert recognised("ori.json", "init") == ("medqlora.data.PubMedQA", {"path": "ori.json"})
    (own_folder / "own").mkdir()
    for name in ("train", "validation", "test"):
        (own_folder / "own" / f"{name}.jsonl").write_text(rows(2))
    assert recognised("own", "init").init_args == {"train": "own", "dev": "own", "test": "own"}
    (own_folder / "own" / "validation.jsonl").unlink()
    (own_folder / "own" / "test.jsonl").unlink()
    assert recognised("own", "init").init_args == {"train": "own"}
    (own_folder / "empty").mkdir()
    with pytest.raises(InputError, match="no data file"):
        recognised("empty", "init")
