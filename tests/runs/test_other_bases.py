"""Whole commands on bases that aren't Llama's kind: a mixture of experts, and a model with a state along the row."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import options, refused, run
from tiny import build_base

from medqlora.models.shares import Shares
from medqlora.module import QLoRAModule

SHORT = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=2", "--model.max_new_tokens=3"]


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_base(tmp_path_factory.mktemp("mixture"), "mixtral", num_local_experts=4)


def test_a_mixture_is_trained_exported_and_tested_with_its_experts(
    mixture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*options(mixture, tmp_path), *SHORT]
    cli = run("fit", words)
    shown = capsys.readouterr().out
    line = next(one for one in shown.splitlines() if one.startswith("Weights: "))
    assert line == ("Weights: 99.7% of the decoder layers' weights are in 4 bits (nf4), 99.7% have adapters")
    assert "get no gradient" not in shown
    adapter = Path(cli.trainer.log_dir) / "adapter"
    config = json.loads((adapter / "adapter_config.json").read_text("utf-8"))
    assert sorted(config["target_modules"]) == ["k_proj", "o_proj", "q_proj", "v_proj"]
    assert sorted(config["target_parameters"]) == ["mlp.experts.down_proj", "mlp.experts.gate_up_proj"]
    trained = {name: one for name, one in cli.model.model.named_parameters() if "lora_B" in name}
    assert any("experts" in name and one.count_nonzero() for name, one in trained.items())
    tested = run("test", [*words, f"--model.adapter={adapter}"])
    for name, weight in tested.model.model.named_parameters():
        if name in trained:
            assert torch.equal(weight, trained[name]), name
    report = json.loads((Path(tested.trainer.log_dir) / "test_report.json").read_text("utf-8"))
    assert report["n"] == 9


def test_a_model_with_a_state_along_the_row_is_trained_on_padded_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = build_base(tmp_path / "base", "mamba", state_size=8, time_step_rank=8)
    words = [*options(base, tmp_path), *SHORT]
    cli = run("fit", words)
    shown = capsys.readouterr().out
    assert [one for one in shown.splitlines() if "padded" in one] == [
        "Rows are padded: its layers carry a state along the row"
    ]
    assert not cli.model.packed
    message = r"--data.packing packed: not possible with this base: its layers carry a state along the row: use padded"
    with pytest.raises(Exception, match=message):
        run("fit", [*words, "--data.packing=packed"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("q_prj,v_proj", "no linear layer 'q_prj'; did you mean 'q_proj'?"),
        ("[q_prj]", "no linear layer 'q_prj'; did you mean 'q_proj'?"),
        ("q_proj|v_proj", "this regular expression matches no layer's full name"),
    ],
)
def test_a_misspelt_layer_is_refused_before_anything_is_loaded(
    mixture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], given: str, message: str
) -> None:
    line = refused(capsys, "fit", *options(mixture, tmp_path), f"--model.lora.target_modules={given}")
    assert message in line
    assert not (tmp_path / "lightning_logs").exists()


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("all-linear", "all-linear"),
        ("q_proj,v_proj", "q_proj,v_proj"),
        ("[q_proj, v_proj]", ["q_proj", "v_proj"]),
        (r".*\.(q_proj|v_proj)", r".*\.(q_proj|v_proj)"),
        ("null", None),
    ],
)
def test_the_command_line_hands_on_each_form_of_target_modules(given: str, read: Any) -> None:
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(QLoRAModule, "model")
    words = ["--model.backend=medqlora.models.Transformers", "--model.backend.base=x"]
    found = parser.parse_args([*words, f"--model.lora.target_modules={given}"])
    assert found.model.lora.target_modules == read


def test_the_share_of_a_model_without_layers_is_none() -> None:
    assert (
        Shares(0, 0, 0)
        .line("int8")
        .startswith("Weights: 0.0% of the decoder layers' weights are in 8 bits, ")
    )
