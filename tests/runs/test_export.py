"""The adapter folder, read by those who don't have this project."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from harness import options, run

_READER = """
import json, sys
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
base, adapter, ids, out = sys.argv[1:5]
quantization = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                                  bnb_4bit_compute_dtype=torch.float32)
model = AutoModelForCausalLM.from_pretrained(
    base, quantization_config=quantization, dtype=torch.float32, device_map="cpu"
)
for module in model.modules():
    module.support_avx512bf16_for_cpu = False  # else bitsandbytes 0.50 computes in bf16 on some CPUs
model = PeftModel.from_pretrained(model, adapter).eval()
assert not any(name.split(".")[0] == "medqlora" for name in sys.modules)
with torch.no_grad():
    torch.save(model(input_ids=torch.tensor([json.loads(ids)])).logits, out)
"""


def test_plain_peft_loads_the_adapter_and_gives_the_logits_of_the_run(
    tiny_bases: dict[str, Path], tmp_path: Path
) -> None:
    cli = run("fit", [*options(tiny_bases["llama"], tmp_path), "--trainer.max_epochs=1"])
    adapter = Path(cli.trainer.log_dir) / "adapter"
    ids = list(cli.datamodule.dev[0].prompt)
    with torch.no_grad():
        expected = cli.model.model.eval()(input_ids=torch.tensor([ids])).logits
    script = tmp_path / "reader.py"
    script.write_text(_READER, encoding="utf-8")
    out = tmp_path / "logits.pt"
    subprocess.run(
        [sys.executable, script, tiny_bases["llama"], adapter, json.dumps(ids), out], check=True, cwd=tmp_path
    )
    torch.testing.assert_close(torch.load(out, weights_only=True), expected, rtol=1e-5, atol=1e-5)


def test_the_best_validation_chooses_the_adapter_that_is_exported(
    tiny_bases: dict[str, Path], tmp_path: Path
) -> None:
    words = [
        *options(tiny_bases["llama"], tmp_path),
        "--checkpoint.monitor=val/loss",
        "--checkpoint.mode=max",
    ]
    cli = run("fit", [*words, "--trainer.max_epochs=3"])  # the highest loss: the first epoch's
    checkpoint = torch.load(cli.trainer.checkpoint_callback.best_model_path, weights_only=True)
    from safetensors.torch import load_file

    exported = load_file(Path(cli.trainer.log_dir) / "adapter" / "adapter_model.safetensors")
    assert checkpoint["global_step"] == 6
    assert len(exported) == len(checkpoint["state_dict"])
    for name, value in checkpoint["state_dict"].items():
        assert torch.equal(exported[name.removeprefix("model.").replace(".default.", ".")], value)


def test_the_folder_says_how_the_adapter_was_made(tiny_bases: dict[str, Path], tmp_path: Path) -> None:
    cli = run("fit", [*options(tiny_bases["llama"], tmp_path), "--trainer.max_epochs=1"])
    folder = Path(cli.trainer.log_dir) / "adapter"
    assert {path.name for path in folder.iterdir()} >= {
        "adapter_config.json",
        "adapter_model.safetensors",
        "tokenizer.json",
        "README.md",
        "medqlora.json",
    }
    record = json.loads((folder / "medqlora.json").read_text())
    assert record["prompt"]["template"]["prompt"].startswith("MEDICAL QUESTION:")
    assert record["train_ids"] == [f"q{number}" for number in range(24)]
    assert set(record["scores"]) >= {"val/accuracy", "val/macro_f1", "val/loss", "val/unparsed_fraction"}
    card = (folder / "README.md").read_text()
    assert "Not medical advice" in card
    assert f"| transformers | {record['versions']['transformers']} |" in card


def test_the_best_adapter_is_there_as_soon_as_it_is_validated(
    tiny_bases: dict[str, Path], tmp_path: Path
) -> None:
    from interruptions import InterruptionError

    words = [*options(tiny_bases["llama"], tmp_path), "--trainer.callbacks=interruptions.StopAt"]
    with pytest.raises(InterruptionError):  # in the epoch after the first validation
        run("fit", [*words, "--trainer.callbacks.step=6"])
    record = tmp_path / "lightning_logs" / "version_0" / "adapter" / "medqlora.json"
    assert json.loads(record.read_text())["training"]["step"] == 6


def test_without_validation_the_newest_epoch_is_exported(tiny_bases: dict[str, Path], tmp_path: Path) -> None:
    words = [*options(tiny_bases["llama"], tmp_path, dev=0), "--data.source.dev_fraction=0"]
    run("fit", words)
    folder = tmp_path / "lightning_logs" / "version_0"
    record = json.loads((folder / "adapter" / "medqlora.json").read_text())
    assert record["training"]["step"] == 12
    assert (record["scores"], record["calibration"], record["dev_ids"]) == ({}, None, [])
