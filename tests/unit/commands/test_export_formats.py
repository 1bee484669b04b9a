"""`medqlora export --to gguf|gguf-lora|ollama|vllm`: compared in llama.cpp; what differs is never left behind."""

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import options, questions, refused, run, write_rows
from merge_models import live_model, saved
from tiny import build_base

from medqlora.artifacts.exports import staging
from medqlora.artifacts.exports.tokens import token_faults
from medqlora.artifacts.exports.vllm import FolderExport
from medqlora.artifacts.gguf import adapter as gguf_adapter
from medqlora.artifacts.gguf import architecture, modelfile, writing
from medqlora.artifacts.merge import run as merge_run
from medqlora.artifacts.merge import shards
from medqlora.artifacts.merge.lora_update import LoRAUpdate, read_update
from medqlora.artifacts.origin import License, Origin, license_of
from medqlora.cli import main
from medqlora.commands.progress_lines import ProgressLines
from medqlora.inference.llama_cpp import LlamaCpp
from medqlora.inference.predictor import Predictor
from medqlora.models import Transformers
from medqlora.utils.locks import hold

gguf = pytest.importorskip("gguf", reason="the extra [gguf] is not installed")
pytest.importorskip("xllamacpp", reason="the extra [gguf] is not installed")


@pytest.fixture(scope="module")
def adapter(tiny_bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    run("fit", [*options(tiny_bases["llama"], folder, dev=12), "--trainer.max_epochs=1"])
    return folder / "lightning_logs" / "version_0" / "adapter"


def export_words(to: str, adapter: Path, out: Path, *more: str) -> list[str]:
    return ["export", "--to", to, "--adapter", str(adapter), "--out", str(out), "--device", "cpu", *more]


def last_line(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The line that ends a command with exit code 2; bars of progress may stand before it."""
    capsys.readouterr()
    assert main(list(words)) == 2
    return capsys.readouterr().err.splitlines()[-1]


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def report_of(path: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(path.read_text())
    return report


@pytest.mark.parametrize(("kind", "largest"), [("f32", 0.005), ("f16", 0.01), ("bf16", 0.1), ("q8_0", 0.2)])
def test_every_type_answers_in_llama_cpp_as_the_live_model(
    adapter: Path, tmp_path: Path, kind: str, largest: float
) -> None:
    out = tmp_path / "model.gguf"
    # of random weights the loss is larger than of trained ones
    assert main(export_words("gguf", adapter, out, "--type", kind, "--tolerance", str(largest))) == 0
    assert left(tmp_path) == ["model.export_report.html", "model.export_report.json", "model.gguf"]
    report = report_of(tmp_path / "model.export_report.json")
    assert report["verification"]["n"] == 12
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


def copied_base(base: Path, folder: Path, card: str = "", license_text: str = "") -> Path:
    shutil.copytree(base, folder)
    for name, text in (("README.md", card), ("LICENSE", license_text)):
        if text:
            (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize("to", ["gguf", "gguf-lora"])
def test_licence_and_base_model_stand_under_llama_cpps_own_keys(
    adapter: Path, tiny_bases: dict[str, Path], tmp_path: Path, to: str
) -> None:
    card = "---\nlicense: other\nlicense_name: tiny\nlicense_link: https://example.org/l\n---\n# A base\n"
    base = copied_base(tiny_bases["llama"], tmp_path / "Tiny-Llama", card)
    out = tmp_path / "m.gguf"
    assert main(export_words(to, adapter, out, "--base", str(base), "--verify", "false")) == 0
    fields = gguf.GGUFReader(out).fields
    value = {key: fields[f"general.{key}"].contents() for key in ("license", "license.name", "license.link")}
    assert value == {"license": "other", "license.name": "tiny", "license.link": "https://example.org/l"}
    assert fields["general.base_model.count"].contents() == 1
    assert fields["general.base_model.0.name"].contents() == "Tiny-Llama"
    digest = json.loads((adapter / "medqlora.json").read_text())["base_identity"].removeprefix("sha256:")
    assert fields["medqlora.base_sha256"].contents() == digest
    assert digest in fields["general.base_model.0.description"].contents()
    assert main(export_words(to, adapter, tmp_path / "n.gguf", "--verify", "false", "--license", "mit")) == 0
    assert gguf.GGUFReader(tmp_path / "n.gguf").fields["general.license"].contents() == "mit"


def test_a_base_model_of_the_hub_is_named_with_its_organization_and_address() -> None:
    origin = Origin("meta-llama/Meta-Llama-3-8B", "abc", "0" * 32, License("llama3"))
    written: dict[str, object] = {}

    class Writer:
        def __getattr__(self, name: str) -> Callable[..., None]:
            return lambda *values: written.update({name: values})

    writing.write_origin(Writer(), origin)  # type: ignore[arg-type]
    assert written["add_license"] == ("llama3",)
    assert written["add_base_model_name"] == (0, "Meta-Llama-3-8B")
    assert written["add_base_model_organization"] == (0, "meta-llama")
    assert written["add_base_model_version"] == (0, "abc")
    assert written["add_base_model_repo_url"] == (0, "https://huggingface.co/meta-llama/Meta-Llama-3-8B")


@pytest.mark.parametrize(
    ("card", "text", "identifier"),
    [
        ("---\nlicense: apache-2.0\n---\n", "MIT License", "apache-2.0"),
        (
            "---\nlicense: [a\n---\n",
            "                Apache License\n           Version 2.0, January",
            "apache-2.0",
        ),
        ("# no front matter", "META LLAMA 3 COMMUNITY LICENSE AGREEMENT\nMeta Llama 3 Version", "llama3"),
        ("---\nlicense: |\n  two\n  lines\n---\n", "all rights reserved", None),
        ("", "", None),
    ],
)
def test_the_licence_is_read_from_card_or_text(
    tmp_path: Path, card: str, text: str, identifier: str | None
) -> None:
    for name, content in (("README.md", card), ("LICENSE", text)):
        (tmp_path / name).write_text(content)
    assert license_of(tmp_path).identifier == identifier


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
    assert report["verification"]["n"] == 12
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


def changed_config(adapter: Path, folder: Path, **fields: object) -> Path:
    shutil.copytree(adapter, folder)
    for manifest in folder.glob("*manifest*"):
        manifest.unlink()
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))
    return folder


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
        "--adapter: --to gguf needs it": ["export", "--to", "gguf", "--out", str(out)],
        "--ckpt_path: --to peft needs it": ["export"],
    }
    for reason, words in refusals.items():
        assert reason in refused(capsys, *words)
    assert left(tmp_path) == before
    assert taken.read_bytes() == b"mine"


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


def test_test_reports_a_gguf_file_beside_the_live_adapter(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from events import logged

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
    (_, accuracy) = logged(folder, "test/accuracy")[0]
    assert accuracy == pytest.approx(report["accuracy"], abs=1e-6)
    assert logged(folder, "test/live_accuracy")[0][1] == pytest.approx(
        report["live"]["live_accuracy"], abs=1e-6
    )
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
    assert gguf.GGUFReader(file).fields["tokenizer.ggml.pre"].contents() == "llama-bpe"
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
