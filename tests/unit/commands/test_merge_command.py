"""`medqlora merge` as a user runs it: what it writes, what it refuses, and that a wrong merge is never left behind."""

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import questions, refused, run, write_rows
from merge_models import live_model, saved
from tensorboard_events import logged
from tiny import build_base

from medqlora.artifacts.merge import run as merge_run
from medqlora.artifacts.merge import shards
from medqlora.artifacts.merge.lora_update import LoRAUpdate, read_update
from medqlora.cli import main
from medqlora.commands.progress_lines import ProgressLines
from medqlora.errors import InputError
from medqlora.evaluation.verification import limits
from medqlora.inference import Predictor, TrainingScope
from medqlora.utils.locks import hold

#: families that are merged as a model, not tensor by tensor
AS_A_MODEL: dict[str, dict[str, Any]] = {
    "mixtral": {"num_local_experts": 4},
    "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 4},
}


@pytest.fixture(scope="module")
def merged(adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("merged") / "out"
    assert main(merge_words(adapter, out)) == 0
    return out


def merge_words(adapter: Path, out: Path, *more: str) -> list[str]:
    return ["merge", "--adapter", str(adapter), "--out", str(out), "--device", "cpu", *more]


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def last_line(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The line that ends a command with exit code 2; bars of progress may stand before it."""
    capsys.readouterr()
    assert main(list(words)) == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_the_folder_loads_in_plain_transformers_with_the_live_models_logits(
    merged: Path, adapter: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    live = Predictor.load(adapter, device="cpu", generate=False)
    plain = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32).eval()
    ids = AutoTokenizer.from_pretrained(merged)("Does drug 7 help?", return_tensors="pt").input_ids
    assert ids.tolist()[0] == live.tokenizer("Does drug 7 help?").input_ids
    with torch.no_grad():
        torch.testing.assert_close(
            plain(input_ids=ids).logits, live.model(input_ids=ids).logits, rtol=0, atol=2e-2
        )
    assert "quantization_config" not in json.loads((merged / "config.json").read_text())


def test_the_report_says_what_was_compared(merged: Path) -> None:
    report = json.loads((merged / "merge_report.json").read_text())
    verification = report["verification"]
    assert report["dtype"] == "float16"
    assert verification["accepted"]
    assert verification["n"] == 24
    assert 0 < verification["largest_difference"] < 0.02
    assert verification["live_accuracy"] == verification["exported_accuracy"]
    assert "Not medical advice" in (merged / "README.md").read_text()
    assert "Merged model: accepted" in (merged / "merge_report.html").read_text()
    assert len(verification["questions"]) == 24


def test_test_and_ask_take_the_folder_as_a_base_model(
    merged: Path,
    adapter: Path,
    fitted: Path,
    tiny_bases: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [f"--config={fitted / 'config.yaml'}", f"--data.source.train={fitted / 'train.jsonl'}"]
    words += [f"--data.source.test={fitted / 'test.jsonl'}", f"--trainer.default_root_dir={tmp_path}"]
    tiny = [f"--model.backend.base={tiny_bases['llama']}", f"--model.adapter={adapter}"]
    live = run("test", [*words, *tiny])
    words += [f"--model.backend.base={merged}", "--model.adapter=none"]
    tested = run("test", [*words, "--model.backend.quantization=none"])
    shown = capsys.readouterr().out
    assert "is quantized to" not in shown
    assert f"Comparing with the live adapter's report in {live.trainer.log_dir}" in shown
    folder = Path(tested.trainer.log_dir)
    report = json.loads((folder / "test_report.json").read_text())
    assert report["n"] == report["live"]["n"] == 9
    assert report["live"]["source"] == live.trainer.log_dir
    assert report["live"]["exported_accuracy"] == report["accuracy"]
    assert 0 < report["live"]["largest_difference"] < 0.02
    assert "Against the live adapter" in (folder / "report.html").read_text()
    assert logged(folder, "x-test/live_changed_decisions") == [(0, 0.0)]
    run("test", words)
    assert "pass --model.backend.quantization none" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"--report\.live \S+: it is for a merged model"):
        run("test", [*words, *tiny, f"--report.live={tmp_path}"])
    with pytest.raises(InputError, match=r"--report\.live: .* holds no test report"):
        run("test", [*words, f"--report.live={tmp_path}"])
    for where in (merged, adapter):
        asked = ["ask", "Does drug 7 help?", "--context", "Trial 7 of it.", "--device", "cpu", "--json"]
        assert main([*asked, "--adapter", str(where)]) == 0
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines() if line[:1] == "{")
    assert first["probabilities"] == pytest.approx(second["probabilities"], abs=2e-3)
    assert first["calibrated_on"] == second["calibrated_on"] == 24
    scope = TrainingScope.load(merged, {})
    assert scope.words
    assert scope.always_context
    assert scope == TrainingScope.load(adapter, {})


@pytest.mark.parametrize("family", AS_A_MODEL)
def test_what_cannot_be_merged_by_tensor_is_merged_too(tmp_path: Path, family: str) -> None:
    from transformers import AutoModelForCausalLM

    base = build_base(tmp_path / "base", family, **AS_A_MODEL[family])
    model = live_model(base)
    adapter = saved(model, tmp_path / "adapter")
    file = write_rows(tmp_path / "questions.jsonl", questions(4))
    out = tmp_path / "out"
    assert main(merge_words(adapter, out, "--base", str(base), "--questions", str(file))) == 0
    report = json.loads((out / "merge_report.json").read_text())
    assert report["verification"]["accepted"]
    assert report["changed_weights"] > 0
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        plain = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
        torch.testing.assert_close(
            plain(input_ids=ids).logits, model(input_ids=ids).logits, rtol=0, atol=2e-2
        )
    assert left(tmp_path) == ["adapter", "base", "out", "questions.jsonl"]


def test_a_whole_model_is_merged_onto_the_16_bit_weights_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = build_base(tmp_path / "base", "mixtral", num_local_experts=4)
    adapter = saved(live_model(base), tmp_path / "adapter")
    file = write_rows(tmp_path / "questions.jsonl", questions(2))
    words = ["--base", str(base), "--onto", str(base), "--questions", str(file), "--dtype", "float32"]
    assert "merged model differs" in last_line(capsys, *merge_words(adapter, tmp_path / "o", *words))
    assert left(tmp_path) == ["adapter", "base", "questions.jsonl"]
    assert main(merge_words(adapter, tmp_path / "out", *words, "--tolerance", "20")) == 0
    report = json.loads((tmp_path / "out" / "merge_report.json").read_text())
    assert report["onto"] == f"those of {base}"
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
        expected = PeftModel.from_pretrained(plain, adapter)(input_ids=ids).logits
        ours = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
        torch.testing.assert_close(ours(input_ids=ids).logits, expected, rtol=1e-4, atol=1e-4)


def test_wrong_input_is_one_line_and_writes_nothing(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "thesis.txt").write_text("mine")
    out = tmp_path / "out"
    other = build_base(tmp_path / "other", seed=1)
    deeper = build_base(tmp_path / "deeper", layers=3)
    before = left(tmp_path)
    assert "the folder is not empty" in refused(capsys, *merge_words(adapter, full))
    assert "there is no folder" in refused(capsys, *merge_words(tmp_path / "nothing", out))
    assert "--questions" in refused(capsys, *merge_words(adapter, out, "--questions", "nothing.jsonl"))
    assert "--adapter: " in refused(capsys, *merge_words(adapter, out, "--base", str(other)))
    refused(capsys, *merge_words(adapter, out, "--base", str(deeper)))
    assert "name of its own" in refused(capsys, *merge_words(adapter, Path()))
    assert "nothing can be written there" in refused(capsys, *merge_words(adapter, Path("/proc/x")))
    nowhere = refused(capsys, *merge_words(adapter, out, "--onto", str(tmp_path / "nothing")))
    assert nowhere.startswith("medqlora: error: --onto: there is no folder")
    columns = write_rows(tmp_path / "c.jsonl", [{"id": "a", "question": "Why?"}])
    assert "name it answer" in refused(
        capsys, *merge_words(adapter, out, "--questions", str(columns)), reads=True
    )
    columns.unlink()
    assert "num_hidden_layers" in refused(capsys, *merge_words(adapter, out, "--onto", str(deeper)))
    assert left(tmp_path) == before
    assert left(full) == ["thesis.txt"]


def without_adapter(folder: Path) -> LoRAUpdate:
    return LoRAUpdate({})


def with_twice_the_scale(folder: Path) -> LoRAUpdate:
    update = read_update(folder)
    return LoRAUpdate({name: lora._replace(scale=2 * lora.scale) for name, lora in update.modules.items()})


@pytest.mark.parametrize("sabotage", [without_adapter, with_twice_the_scale])
def test_a_wrong_merge_fails_its_verification_and_leaves_nothing(
    adapter: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    sabotage: Any,
) -> None:
    monkeypatch.setattr(merge_run, "read_update", sabotage)
    line = last_line(capsys, *merge_words(adapter, tmp_path / "out"))
    assert "not written, the merged model differs" in line
    assert left(tmp_path) == []


@pytest.mark.parametrize("step", ["Merging", "Merged model"])
def test_after_a_kill_there_is_no_output_and_the_same_command_goes_on(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    class Killed(BaseException):
        pass

    def kill(self: ProgressLines, name: str, done: int, total: int) -> None:
        if name == step and done >= total // 2:
            raise Killed

    update = ProgressLines.update
    monkeypatch.setattr(ProgressLines, "update", kill)
    with pytest.raises(Killed):
        main(merge_words(adapter, tmp_path / "out"))
    monkeypatch.setattr(ProgressLines, "update", update)
    assert left(tmp_path) == [".out.merging"]
    assert main(merge_words(adapter, tmp_path / "out")) == 0
    assert left(tmp_path) == ["out"]


def test_an_output_that_another_process_writes_is_left_to_it(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    release = hold(tmp_path / "out")
    try:
        line = refused(capsys, *merge_words(adapter, tmp_path / "out"))
    finally:
        release()
    assert "another process is writing it" in line
    assert left(tmp_path) == []


@pytest.mark.parametrize("step", ["weights", "report"])
def test_a_full_disk_is_one_line_and_leaves_nothing(
    adapter: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    step: str,
) -> None:
    def full(tensors: object, path: Path, metadata: object) -> None:
        Path(path).write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    def full_later(path: Path, text: str) -> None:
        full(None, path, None)

    if step == "weights":
        monkeypatch.setattr(shards, "save_file", full)
    else:
        monkeypatch.setattr(merge_run, "write_text", full_later)
    line = last_line(capsys, *merge_words(adapter, tmp_path / "out", "--verify", "false"))
    assert f"--out {tmp_path / 'out'}: the disk is full" in line
    assert left(tmp_path) == []


def test_without_verification_the_card_says_so(adapter: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(adapter, tmp_path / "adapter")
    assert main(merge_words(copied, tmp_path / "out", "--verify", "false")) == 0
    assert "Not verified" in (tmp_path / "out" / "README.md").read_text()
    assert json.loads((tmp_path / "out" / "merge_report.json").read_text())["verification"] is None
    assert "Merged model: not verified" in (tmp_path / "out" / "merge_report.html").read_text()


@pytest.mark.parametrize(("kind", "flag"), [("nf4", "load_in_4bit"), ("int8", "load_in_8bit")])
def test_the_merged_weights_can_be_quantized_and_the_loss_is_measured(
    adapter: Path, tmp_path: Path, kind: str, flag: str
) -> None:
    from transformers import AutoModelForCausalLM

    out = tmp_path / "out"
    assert main(merge_words(adapter, out, "--quantize", kind, "--tolerance", "20")) == 0
    assert json.loads((out / "config.json").read_text())["quantization_config"][flag]
    report = json.loads((out / "merge_report.json").read_text())
    assert report["quantized"] == kind
    assert report["verification"]["largest_difference"] > 0.001
    assert report["verification"]["limits"]["difference"] == 20
    assert "quantized" not in left(out)
    AutoModelForCausalLM.from_pretrained(out)
    assert main(["ask", "Does drug 7 help?", "--adapter", str(out), "--device", "cpu", "--json"]) == 0


def test_a_tolerance_accepts_the_decisions_that_it_can_turn() -> None:
    assert limits(16) == (0.02, 0.05)
    assert limits(4) == (0.5, 0.05)
    assert limits(16, 0.001) == (0.001, 0.05)
    # of two labels with a margin m, log p - log q is 2 artanh(m)
    assert limits(16, 0.5).margin == pytest.approx(0.46212, abs=1e-5)
