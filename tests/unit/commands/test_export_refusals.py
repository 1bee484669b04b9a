"""`medqlora export`: wrong input and wrong exports are one line each, and never left behind."""

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from exporting import changed_config, export_words, last_line, left
from harness import questions, refused, write_rows
from merge_models import live_model, saved
from tiny import build_base

from medqlora.artifacts.exports import staging
from medqlora.artifacts.gguf import adapter as gguf_adapter
from medqlora.artifacts.gguf import architecture, modelfile
from medqlora.artifacts.merge import run as merge_run
from medqlora.artifacts.merge import shards
from medqlora.artifacts.merge.lora_update import LoRAUpdate, read_update
from medqlora.cli import main
from medqlora.commands.progress_lines import ProgressLines
from medqlora.utils.locks import hold

gguf = pytest.importorskip("gguf", reason="the extra [gguf] is not installed")
pytest.importorskip("xllamacpp", reason="the extra [gguf] is not installed")


def test_wrong_input_is_one_line_and_writes_nothing(
    adapter: Path,
    tiny_bases: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "m.gguf"
    gemma = saved(live_model(tiny_bases["gemma"]), tmp_path / "gemma")
    taken = tmp_path / "taken.gguf"
    taken.write_bytes(b"mine")
    dora = changed_config(adapter, tmp_path / "dora", use_dora=True)
    ranks = changed_config(adapter, tmp_path / "ranks", rank_pattern={"q_proj": 1024})
    half = tmp_path / "half.gguf"
    half.write_bytes(b"GGUF\x03\x00\x00\x00" + b"x" * 50)
    (tmp_path / "folder.gguf").mkdir()
    nothing = str(tmp_path / "nothing")
    monkeypatch.setenv("PATH", str(tmp_path))  # without llama-quantize
    before = left(tmp_path)
    refusals = {
        "the file exists": export_words("gguf", adapter, taken),
        "is gemma, and GGUF is written for": export_words(
            "gguf", gemma, out, "--base", str(tiny_bases["gemma"])
        ),
        "llama-quantize": export_words("gguf", adapter, out, "--type", "q4_k_m"),
        "--base_gguf: there is no file": export_words("gguf-lora", adapter, out, "--base_gguf", "no.gguf"),
        "--base_gguf: --to gguf does not use it": export_words("gguf", adapter, out, "--base_gguf", "a"),
        "there is no folder": export_words("gguf", tmp_path / "nothing", out),
        f"--base_gguf {half}: it is no complete GGUF file": export_words(
            "gguf-lora", adapter, out, "--base_gguf", str(half)
        ),
        "it is a folder: name a new file": export_words("gguf", adapter, tmp_path / "folder.gguf"),
        "an output needs a name of its own": export_words("vllm", adapter, Path()),
        "nothing can be written there": export_words("gguf", adapter, Path("/proc/m.gguf")),
        "--license: --to vllm does not use it": export_words("vllm", adapter, out, "--license", "mit"),
        f"--base: there is no folder '{nothing}'": export_words("vllm", adapter, out, "--base", nothing),
        f"there is no folder {nothing}": ["test", "--gguf", str(half), "--logs", nothing + "/logs"],
        f"--gguf {half}: it is no complete GGUF file": ["test", "--gguf", str(half)],
        "vLLM takes no adapter with DoRA": export_words("vllm", dora, out),
        "the adapter's rank is 1024": export_words("vllm", ranks, out),
        "--out: --to gguf needs it": ["export", "--to", "gguf", "--logs", str(tmp_path)],
        "holds no finished run": ["export", "--to", "gguf", "--out", str(out), "--logs", str(tmp_path)],
        "holds no run": ["export", "--logs", str(tmp_path)],
    }
    for reason, words in refusals.items():
        assert reason in refused(capsys, *words)
    assert left(tmp_path) == before
    assert taken.read_bytes() == b"mine"


@pytest.mark.parametrize("fields", [{"intermediate_size": 160}, {"vocab_size": 8}])
def test_another_base_model_than_the_adapters_is_one_line_for_vllm(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], fields: dict[str, int]
) -> None:
    other = build_base(tmp_path / "other", **fields)
    line = last_line(capsys, *export_words("vllm", adapter, tmp_path / "out", "--base", str(other)))
    assert "the adapter does not fit it: name the base model that it was trained on" in line
    assert left(tmp_path) == ["other"]


def test_a_missing_package_is_one_line(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    line = refused(capsys, *export_words("gguf", adapter, tmp_path / "m.gguf"))
    assert "pip install -e '.[gguf]'" in line
    assert left(tmp_path) == []


def without_adapter(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(merge_run, "read_update", lambda folder: LoRAUpdate({}))


def with_twice_the_scale(patch: pytest.MonkeyPatch) -> None:
    def doubled(folder: Path) -> LoRAUpdate:
        modules = read_update(folder).modules
        return LoRAUpdate({name: lora._replace(scale=2 * lora.scale) for name, lora in modules.items()})

    patch.setattr(merge_run, "read_update", doubled)


def with_heads_as_they_are(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(architecture, "permuted", lambda weight, heads: weight)


@pytest.mark.parametrize("sabotage", [without_adapter, with_twice_the_scale, with_heads_as_they_are])
def test_a_wrong_export_fails_its_verification_and_leaves_nothing(
    adapter: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    sabotage: Callable[[pytest.MonkeyPatch], None],
) -> None:
    sabotage(monkeypatch)
    line = last_line(capsys, *export_words("gguf", adapter, tmp_path / "m.gguf"))
    assert "not written, llama.cpp differs from the live model: the largest difference" in line
    assert left(tmp_path) == []


def test_a_gguf_adapter_whose_heads_are_not_permuted_fails_its_verification(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gguf_adapter, "permuted", lambda weight, heads: weight)
    line = last_line(capsys, *export_words("gguf-lora", adapter, tmp_path / "lora.gguf"))
    assert "not written, llama.cpp differs from the live model: the largest difference" in line
    assert left(tmp_path) == []


def test_a_doubled_bos_fails_the_verification_though_every_score_agrees(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = modelfile.ollama_template

    def doubled(*arguments: Any) -> str:
        return "<s>" + plain(*arguments)

    monkeypatch.setattr(modelfile, "ollama_template", doubled)
    line = last_line(capsys, *export_words("ollama", adapter, tmp_path / "o"))
    assert "Ollama's template: a prompt begins with 2 BOS tokens in llama.cpp, and with 1 in the live" in line
    assert left(tmp_path) == []


def test_a_bos_that_the_tokenizer_does_not_add_fails_the_verification(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    base = build_base(tmp_path / "base")
    file = base / "tokenizer.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "post_processor": None}))
    adapter = saved(live_model(base), tmp_path / "adapter")
    asked = write_rows(tmp_path / "questions.jsonl", questions(2))
    words = export_words("gguf", adapter, tmp_path / "m.gguf", "--base", str(base), "--questions", str(asked))
    plain = gguf.SpecialVocab.add_to_gguf

    def adds_bos(self: Any, writer: Any, quiet: bool = False) -> None:
        self.add_special_token["bos"] = True
        plain(self, writer, quiet)

    with monkeypatch.context() as patch:
        patch.setattr(gguf.SpecialVocab, "add_to_gguf", adds_bos)
        assert "a prompt begins with 1 BOS tokens in llama.cpp, and with 0" in last_line(capsys, *words)
    assert left(tmp_path) == ["adapter", "base", "questions.jsonl"]
    assert main(words) == 0


def test_a_wrong_pre_tokenizer_fails_the_verification(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = build_base(tmp_path / "base")
    file = base / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    vocabulary, merges = tokenizer["model"]["vocab"], tokenizer["model"]["merges"]
    vocabulary["00"] = vocabulary.pop("".join(merges[-1]))
    merges[-1] = ["0", "0"]  # which a pre-tokenizer that splits digits never joins
    file.write_text(json.dumps(tokenizer))
    adapter = saved(live_model(base), tmp_path / "adapter")
    asked = write_rows(tmp_path / "questions.jsonl", questions(2, start=1000))
    words = export_words("gguf", adapter, tmp_path / "m.gguf", "--base", str(base), "--questions", str(asked))
    line = last_line(capsys, *words, "--pre_tokenizer", "smollm")
    assert "token ids differ from token" in line
    assert "try another --pre_tokenizer" in line
    assert main(words) == 0


def test_after_a_kill_there_is_no_output_and_the_same_command_goes_on(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def kill(self: ProgressLines, name: str, done: int, total: int) -> None:
        if name == "Writing GGUF" and done >= total // 2:
            raise Killed

    update = ProgressLines.update
    monkeypatch.setattr(ProgressLines, "update", kill)
    with pytest.raises(Killed):
        main(export_words("gguf", adapter, tmp_path / "m.gguf"))
    assert all(name.startswith(".") for name in left(tmp_path))
    monkeypatch.setattr(ProgressLines, "update", update)
    assert main(export_words("gguf", adapter, tmp_path / "m.gguf")) == 0
    assert left(tmp_path) == ["m.export_report.html", "m.export_report.json", "m.gguf"]


def test_an_output_that_another_process_writes_is_left_to_it(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    release = hold(tmp_path / "m.gguf")
    try:
        line = refused(capsys, *export_words("gguf", adapter, tmp_path / "m.gguf"))
    finally:
        release()
    assert "another process is writing it" in line
    assert left(tmp_path) == []


@pytest.mark.parametrize("to", ["gguf", "merged weights", "report", "vllm"])
def test_a_full_disk_is_one_line_and_leaves_nothing(
    adapter: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    to: str,
) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def full_as_numpy_says_it(*arguments: Any) -> None:
        raise OSError("8192 requested and 512 written")

    def full_as_copytree_says_it(*arguments: Any, **options: Any) -> None:
        raise shutil.Error([("a", "b", "[Errno 28] No space left on device: 'b'")])

    if to == "gguf":
        monkeypatch.setattr(gguf.GGUFWriter, "write_tensor_data", full_as_numpy_says_it)
    elif to == "merged weights":
        monkeypatch.setattr(shards, "save_file", full)
    elif to == "report":
        monkeypatch.setattr(staging, "write_text", full)
    else:
        monkeypatch.setattr(shutil, "copytree", full_as_copytree_says_it)
    out = tmp_path / "m.gguf"
    line = last_line(
        capsys, *export_words("vllm" if to == "vllm" else "gguf", adapter, out, "--verify", "false")
    )
    assert f"--out {out}: the disk is full" in line
    assert left(tmp_path) == []
