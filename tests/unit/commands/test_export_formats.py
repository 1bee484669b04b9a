"""`medqlora export --to gguf|gguf-lora|ollama|vllm`: each compared with the live model."""

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from exporting import export_words, last_line, left, report_of
from harness import questions, write_rows
from merge_models import live_model, saved
from tiny import build_base

from medqlora.artifacts.exports.tokens import token_faults
from medqlora.artifacts.exports.vllm import FolderExport
from medqlora.artifacts.gguf import writing
from medqlora.cli import main
from medqlora.inference.llama_cpp import LlamaCpp
from medqlora.models import Transformers

gguf = pytest.importorskip("gguf", reason="the extra [gguf] is not installed")
pytest.importorskip("xllamacpp", reason="the extra [gguf] is not installed")


@pytest.mark.parametrize(("kind", "largest"), [("f32", 0.005), ("f16", 0.01), ("bf16", 0.1), ("q8_0", 0.2)])
def test_every_type_answers_in_llama_cpp_as_the_live_model(
    adapter: Path, tmp_path: Path, kind: str, largest: float
) -> None:
    out = tmp_path / "model.gguf"
    # of random weights the loss is larger than of trained ones
    assert main(export_words("gguf", adapter, out, "--type", kind, "--tolerance", str(largest))) == 0
    assert left(tmp_path) == ["model.export_report.html", "model.export_report.json", "model.gguf"]
    report = report_of(tmp_path / "model.export_report.json")
    assert report["verification"]["n"] == 24
    assert report["verification"]["largest_difference"] <= largest
    assert report["tokens_compared"] == 8


def test_the_file_says_what_it_is_made_from(adapter: Path, tmp_path: Path) -> None:
    out = tmp_path / "folder"
    assert main(export_words("gguf", adapter, out, "--verify", "false")) == 0
    assert left(out) == ["export_report.html", "export_report.json", "model.gguf"]
    fields = gguf.GGUFReader(out / "model.gguf").fields
    record = json.loads((adapter / "medqlora.json").read_text())
    assert fields["medqlora.base_identity"].contents() == record["base_identity"]
    assert json.loads(fields["medqlora.prompt"].contents()) == record["prompt"]
    assert json.loads(fields["medqlora.calibration"].contents()) == record["calibration"]
    assert fields["medqlora.labels"].contents() == ["yes", "no", "maybe"]
    report = report_of(out / "export_report.json")
    assert report["verification"] is None
    assert report["license"] == "unknown: pass --license"
    assert "general.license" not in fields
    assert report["not_verified"] == ["The answers: --verify false left the comparison out."]
    assert "GGUF file: not verified" in (out / "export_report.html").read_text()


@pytest.mark.parametrize("family", ["mistral", "qwen2", "qwen3"])
def test_every_family_is_read_by_llama_cpp(tmp_path: Path, tiny_bases: dict[str, Path], family: str) -> None:
    folder = saved(live_model(tiny_bases[family]), tmp_path / "adapter")
    file = write_rows(tmp_path / "questions.jsonl", questions(4))
    words = export_words("gguf", folder, tmp_path / "m.gguf", "--base", str(tiny_bases[family]))
    assert main([*words, "--questions", str(file)]) == 0


def test_an_adapter_alone_is_compared_on_the_dequantized_base_or_on_the_users(
    adapter: Path, tiny_bases: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(export_words("gguf-lora", adapter, tmp_path / "lora.gguf")) == 0
    report = report_of(tmp_path / "lora.export_report.json")
    assert report["verification"]["largest_difference"] < 0.02
    assert report["onto"] == "the base model's, dequantized from nf4"
    original = tmp_path / "original.gguf"
    writing.write_gguf(tiny_bases["llama"], original, "f16", {})
    words = export_words("gguf-lora", adapter, tmp_path / "on.gguf", "--base_gguf", str(original))
    assert "the base GGUF is not the base model" in last_line(capsys, *words)
    assert left(tmp_path) == [
        "lora.export_report.html",
        "lora.export_report.json",
        "lora.gguf",
        "original.gguf",
    ]
    assert main([*words, "--tolerance", "100", "--verify", "false"]) == 0


def test_ollama_gets_a_template_that_makes_our_prompt(adapter: Path, tmp_path: Path) -> None:
    out = tmp_path / "ollama"
    assert main(export_words("ollama", adapter, out)) == 0
    assert left(out) == ["Modelfile", "export_report.html", "export_report.json", "model.gguf"]
    text = (out / "Modelfile").read_text()
    assert text.startswith("FROM ./model.gguf\n")
    assert 'TEMPLATE """MEDICAL QUESTION: {{ .Prompt }}\nANSWER:{{ .Response }}"""' in text
    assert "PARAMETER temperature 0\n" in text
    assert 'PARAMETER stop "</s>"' in text
    assert "Not medical advice" in text


def test_vllm_gets_a_folder_that_it_takes_and_its_command(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from peft import PeftConfig

    out = tmp_path / "served"
    # on the 16-bit base model; of random weights the loss is larger than of trained ones
    assert main(export_words("vllm", adapter, out, "--tolerance", "5")) == 0
    shown = capsys.readouterr().out
    assert f"--enable-lora --lora-modules served={out} --max-lora-rank 8" in shown
    assert PeftConfig.from_pretrained(out).r == 4
    decision = json.loads((out / "decision.json").read_text())
    assert decision["labels"] == ["yes", "no", "maybe"]
    assert decision["adapter"] == "served"
    assert main(["ask", "Does it help?", "--adapter", str(out), "--device", "cpu", "--json"]) == 0
    report = report_of(out / "export_report.json")
    assert report["scored_by"] == "transformers and PEFT, float32"
    assert report["verification"]["n"] == 24
    assert report["verification"]["largest_difference"] > 0.001  # the base model is no longer quantized
    assert "vLLM itself: it was not run" in (out / "export_report.html").read_text()


def test_the_folder_for_vllm_is_scored_by_peft_and_a_wrong_one_is_refused(
    adapter: Path, tiny_bases: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import load_file, save_file

    packed = tmp_path / "packed"  # a base model whose files are quantized is served as it was trained on
    Transformers(str(tiny_bases["llama"]), gradient_checkpointing=False).load(
        lora=None, adapter=None, device=torch.device("cpu"), dtype=torch.float32, seed=0
    ).save_pretrained(packed)  # type: ignore[operator]
    for file in tiny_bases["llama"].glob("*token*"):
        shutil.copy(file, packed)
    served = export_words("vllm", adapter, tmp_path / "served", "--base", str(packed))
    assert main(served) == 0
    verification = report_of(tmp_path / "served" / "export_report.json")["verification"]
    assert verification["limits"]["difference"] == 0.02
    assert verification["largest_difference"] < 1e-4
    copy = FolderExport.write

    def without_adapter(made: FolderExport) -> None:
        copy(made)
        file = made.staging.folder / "adapter_model.safetensors"
        save_file({name: tensor * 0 for name, tensor in load_file(file).items()}, file, {"format": "pt"})

    before = left(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FolderExport, "write", without_adapter)
        line = last_line(capsys, *export_words("vllm", adapter, tmp_path / "w", "--base", str(packed)))
    assert "differs from the live model: the largest difference" in line
    assert "serve the merged model instead (`medqlora merge`)" in line
    assert left(tmp_path) == before


def test_an_adapter_without_questions_of_its_own_is_exported_for_vllm_unverified(
    tiny_bases: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = saved(live_model(tiny_bases["llama"]), tmp_path / "adapter")
    assert main(export_words("vllm", folder, tmp_path / "out", "--base", str(tiny_bases["llama"]))) == 0
    assert "Not verified: --adapter" in capsys.readouterr().out
    report = report_of(tmp_path / "out" / "export_report.json")
    assert report["verification"] is None
    assert "names no validation questions" in report["not_verified"][0]


def test_the_real_llama_3_tokenizer_gives_the_same_token_ids_in_llama_cpp(
    tmp_path: Path, llama3_tokenizer: Any
) -> None:
    base = build_base(
        tmp_path / "base", layers=1, vocab_size=len(llama3_tokenizer), hidden_size=32, num_attention_heads=2
    )
    llama3_tokenizer.save_pretrained(base)
    config = json.loads((base / "config.json").read_text())
    ids = {
        f"{name}_token_id": getattr(llama3_tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")
    }
    (base / "config.json").write_text(json.dumps({**config, **ids}))
    file = tmp_path / "m.gguf"
    writing.write_gguf(base, file, "f16", {})
    # gguf's reader would make arrays of all 400,000 texts of the vocabulary; 8 is the type of a text
    head, key = file.read_bytes(), b"tokenizer.ggml.pre"
    kind, size = struct.unpack_from("<IQ", head, place := head.index(key) + len(key))
    assert (kind, head[place + 12 : place + 12 + size]) == (8, b"llama-bpe")
    texts = [
        "Does it help?\nANSWER:",
        "12345678 mg/m², naïve   don't\n\n\tÄÖ 东京 😀?",
        "A (95% CI: 1.02–3.40; P<0.001) IL-6's",
    ]
    # this copy of the tokenizer adds no BOS, and llama.cpp would by itself
    prompts = [llama3_tokenizer.encode(text) for text in texts]
    with LlamaCpp(file, 256) as runtime:
        assert token_faults(runtime, llama3_tokenizer, prompts) == []
        assert [runtime.tokens(text) for text in texts] == prompts
