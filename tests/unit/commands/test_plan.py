"""`medqlora plan`: memory and time before a weight is loaded, on a machine without a GPU."""

import json
import re
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from harness import options, refused, write_rows
from tiny import build_base

from medqlora.cli import main
from medqlora.commands.plan_report import report_lines

CONFIGS = Path(__file__).parents[3] / "configs"
QLORA, NO_UNSLOTH, LARGE_GPU, COLAB = (
    str(CONFIGS / f"{name}.yaml") for name in ("qlora", "no_unsloth", "large_gpu", "colab_t4")
)
GIB = 2**30


def planned(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["plan", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_the_experiment_is_planned_without_a_gpu_weights_or_network(
    capsys: pytest.CaptureFixture[str],
) -> None:
    default = planned(capsys, "--config", QLORA, "--gpu", "h200")
    found = planned(capsys, "--config", QLORA, "--gpu", "h200", "--model.graphs", "off")
    assert (default["graphs"], found["graphs"]) == (True, False)
    # the graphs' share is the memory that they keep in evaluations
    held = [phase.get("CUDA graphs", 0) for phase in default["phases"].values()]
    assert default["peak"] - found["peak"] <= max(held) < GIB
    assert (found["engine"], found["checkpointing"], found["steps"]) == ("fused", "offload", 171)
    fit = sum(found["phases"]["fit"].values())
    assert fit / GIB == pytest.approx(6.43, rel=0.05)  # as measured on an H200
    assert fit < found["peak"] <= 7.0 * GIB  # the answers of an evaluation fill the rest
    assert found["fits"]
    assert "published shape of llama-3-8b" in found["notes"][0]
    assert found["full_fine_tuning"]["saved"] > 0.9


def test_without_a_network_the_hub_is_asked_once_and_one_line_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def refuse() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    asked.append(connection.recv(1000).split(b" ")[0])

        threading.Thread(target=refuse, daemon=True).start()
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("HF_ENDPOINT", address)
        monkeypatch.delenv("HF_HUB_OFFLINE")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        assert main(["plan", "--config", QLORA, "--gpu", "h200"]) == 0
        server.shutdown(socket.SHUT_RDWR)
    out, err = capsys.readouterr()
    assert asked == [b"HEAD"]
    assert sum("does not answer" in line for line in out.splitlines()) == 1
    assert "etry" not in err


def test_nothing_is_asked_where_everything_is_local(
    tiny_bases: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def never(**options: object) -> None:
        raise AssertionError("the Hub was asked")

    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr("medqlora.commands.plan_inputs.hub", never)
    assert planned(capsys, *options(tiny_bases["llama"], tmp_path))["notes"] == []


def test_a_sample_of_the_questions_is_counted_where_they_cannot_be_read(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    found = planned(capsys, "--config", QLORA, "--config", COLAB, "--gpu", "t4")
    assert found["steps"] == 75  # 3 epochs of 200 questions, 8 at a time
    assert "200 questions" in found["notes"][-1]
    # the base's tokenizer alone is missing: the questions are counted
    rows = [
        {"id": str(number), "question": f"Does drug {number} help?", "answer": "yes"} for number in range(20)
    ]
    file = write_rows(tmp_path / "train.jsonl", rows)
    words = ["--data.source", "medqlora.data.JSONLines", f"--data.source.train={file}"]
    other = [{"id": "x", "question": "Is it?", "answer": "yes"}]
    words += [f"--data.source.test={write_rows(tmp_path / 'test.jsonl', other)}", "--gpu", "t4"]
    found = planned(capsys, "--config", QLORA, *words)
    assert found["steps"] == 9
    assert "19 questions" in found["notes"][-1]  # one validates


def test_parameters_and_the_times_on_several_gpus_stand_side_by_side(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = planned(capsys, "--config", QLORA)
    assert found["parameters"] == {"trainable": 41_943_040, "total": 8_030_261_248 + 41_943_040}
    rows = {row["gpu"]: row for row in found["gpus"]}
    assert {"t4", "rtx4090", "h200"} <= rows.keys()
    assert (rows["t4"]["engine"], rows["h200"]["engine"]) == ("native", "fused")
    for row in rows.values():
        least = [minutes[0] for minutes in row["minutes"].values()]
        assert least == sorted(least, reverse=True)
    one = planned(capsys, "--config", QLORA, "--gpu", "h200", "--devices", "2")
    assert [row["gpu"] for row in one["gpus"]] == ["h200"]
    assert one["minutes"] == one["gpus"][0]["minutes"]["2"] == rows["h200"]["minutes"]["2"]
    assert main(["plan", "--config", QLORA]) == 0
    out = capsys.readouterr().out
    assert "Parameters: 41,943,040 trainable of 8,072,204,288 (0.52%)" in out
    assert max(map(len, out.splitlines())) <= 130
    fastest = next(line for line in out.splitlines() if line.startswith("  b200"))
    assert len(re.split(r"\s{2,}", fastest.strip())) == 6, fastest  # GPU, engine, four columns apart


def test_a_small_gpu_is_told_what_fits(capsys: pytest.CaptureFixture[str]) -> None:
    small = planned(capsys, "--config", QLORA, "--gpu-memory", "6GiB")
    assert not small["fits"]
    eight = planned(capsys, "--config", QLORA, "--gpu-memory", "8GiB")
    assert eight["fits"]
    assert eight["largest"]["none"] is None
    assert eight["largest"]["full"] < eight["largest"]["offload"]
    larger = planned(capsys, "--config", QLORA, "--gpu-memory", "80GB")["largest"]
    assert 8192 <= larger["none"] < larger["full"]


def test_a_base_of_70b_fits_two_small_gpus_that_share_it_and_none_that_has_it_whole(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["--config", QLORA, "--config", NO_UNSLOTH, "--config", LARGE_GPU, "--gpu-memory", "24GiB"]
    words += ["--model.backend.base=meta-llama/Meta-Llama-3-70B", "--devices=2"]
    words += ["--model.embedding=host", "--model.head=host"]
    spread = planned(capsys, *words, "--trainer.strategy=fsdp")
    assert spread["fits"]
    whole = planned(capsys, *words)
    assert not whole["fits"]
    layer = whole["phases"]["load"]["quantized weights"] / 80
    assert spread["phases"]["load"]["quantized weights"] == pytest.approx(40 * layer)
    assert spread["phases"]["fit"]["gathered layers"] == pytest.approx(2 * layer)
    assert "gathered layers" not in whole["phases"]["fit"]
    two_machines = planned(capsys, *words, "--num_nodes=2", "--trainer.strategy=fsdp")
    assert two_machines["devices"] == 4
    # each machine has the base
    assert two_machines["phases"]["load"] == spread["phases"]["load"]
    assert two_machines["largest_micro_batch"] <= spread["largest_micro_batch"]


def test_what_a_shared_base_cannot_do_is_refused_in_the_plan_too(capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "plan", "--config", QLORA, "--devices=2", "--trainer.strategy=fsdp")
    assert "use --model.backend medqlora.models.Transformers" in said


def test_an_old_gpu_runs_the_native_engine(capsys: pytest.CaptureFixture[str]) -> None:
    assert planned(capsys, "--config", QLORA, "--gpu", "T4")["engine"] == "native"


@pytest.mark.parametrize(
    ("changes", "engine"),
    [
        ({"sliding_window": 16}, "native"),
        ({"sliding_window": 4096}, "fused"),
        ({"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, "native"),
        ({"attention_dropout": 0.1}, "native"),
    ],
)
def test_what_the_fused_engine_cannot_run_is_planned_for_the_native_one(
    changes: dict[str, Any], engine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = build_base(tmp_path / "base", "mistral", **changes)
    words = ["--trainer.precision=bf16-mixed", "--gpu=h200"]
    assert planned(capsys, *options(base, tmp_path), *words)["engine"] == engine


def test_a_local_model_and_its_questions_are_counted(
    tiny_bases: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = planned(capsys, *options(tiny_bases["llama"], tmp_path))
    assert found["notes"] == []
    assert found["steps"] == 12
    assert not (tmp_path / "lightning_logs").exists()
    (work,) = [line for line in report_lines(found) if line.startswith("Work:")]
    amount, unit = re.fullmatch(r"Work: +12 steps of ([\d.]+) (\wFLOP), .* tokens", work).groups()  # type: ignore[union-attr]
    sizes = {"TFLOP": 1e12, "GFLOP": 1e9, "MFLOP": 1e6}
    assert float(amount) * sizes[unit] == pytest.approx(found["flops_per_step"], rel=0.05)
    (time,) = [line for line in report_lines(found) if line.startswith("Time:")]
    assert "not estimated for a CPU" in time
    (peak,) = [line for line in report_lines({**found, "devices": 2}) if line.startswith("Peak:")]
    assert " in each of 2 processes, with " in peak


def test_the_table_says_phase_by_phase_what_is_held(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--config", QLORA, "--gpu", "rtx4090"]) == 0
    out = capsys.readouterr().out
    for part in ("quantized weights", "optimizer", "keys and values", "Peak:", "Time:", "full fine-tuning"):
        assert part in out
    assert max(map(len, out.splitlines())) <= 130


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--gpu-memory", "8 potatoes"], "--gpu-memory 8 potatoes: give a number and GiB"),
        (["--gpu-memory", "0GiB"], "--gpu-memory 0GiB"),
        (["--gpu-memory", "9" * 400 + "GiB"], ": give a number and GiB"),
        (["--gpu", "h20"], "--gpu h20: not known: did you mean h200?"),
        (["--model.lora.rank", "4"], "did you mean"),
        (["--model.lora.r", "0"], "--model.lora.r is 0"),
        (["--model.lora.target_modules", "[q_prj]"], "no linear layer 'q_prj'; did you mean 'q_proj'?"),
        (["--model.checkpointing", "-3"], "--model.checkpointing is -3"),
        (
            ["--model.engine", "native", "--model.weights", "cached"],
            "--model.weights cached: the native engine",
        ),
        (
            ["--trainer.precision", "bf16-true"],
            "--trainer.precision bf16-true: the adapters are kept in float32",
        ),
        (["--trainer.max_epochs", "-1"], "--trainer.max_epochs -1 without --trainer.max_steps"),
    ],
)
def test_wrong_input_gets_one_line_and_exit_code_2(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused(capsys, "plan", "--config", QLORA, *words)


@pytest.mark.parametrize("kind", ["gpt2", "mixtral"])
def test_a_model_whose_weights_it_cannot_count_is_not_planned_for(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import AutoConfig

    AutoConfig.for_model(kind).save_pretrained(tmp_path)
    words = ["--config", QLORA, "--config", NO_UNSLOTH, f"--model.backend.base={tmp_path}"]
    assert f"'{tmp_path}' is {kind}" in refused(capsys, "plan", *words)


@pytest.mark.parametrize("nothing", ["num_hidden_layers", "hidden_size", "num_attention_heads"])
def test_a_shape_with_nothing_of_a_kind_is_unknown(nothing: str) -> None:
    from transformers import LlamaConfig

    from medqlora.planner import Shape

    config = LlamaConfig()
    setattr(config, nothing, 0)
    with pytest.raises(AttributeError, match=f"llama has {nothing} 0"):
        Shape.of(config)


def test_a_run_is_as_long_as_fit_would_make_it(capsys: pytest.CaptureFixture[str]) -> None:
    whole = planned(capsys, "--config", QLORA, "--gpu", "h200")
    for words, steps in (
        (["--trainer.max_steps=20"], 20),
        (["--trainer.max_epochs=-1", "--trainer.max_steps=500"], 500),
        (["--trainer.limit_train_batches=10"], 30),
        (["--trainer.limit_train_batches=0.5", "--trainer.max_epochs=2"], 56),
    ):
        found = planned(capsys, "--config", QLORA, "--gpu", "h200", *words)
        assert found["steps"] == steps
        assert found["minutes"][0] == pytest.approx(whole["minutes"][0] * steps / whole["steps"])


def test_more_devices_than_a_step_has_examples_are_planned_at_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    some, many = (
        planned(capsys, "--config", QLORA, "--gpu", "h200", f"--devices={devices}") for devices in (8, 10**7)
    )
    assert many["peak"] == some["peak"]  # a step has 8 examples
