"""The fused engine under the whole machinery: the same run as the native one, and interchangeable with it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from harness import adapter_weights, options, run
from tiny import build_base
from transformers import AutoModelForCausalLM

from medqlora.distributed.loading import load_model
from medqlora.errors import InputError


@pytest.fixture
def words(tiny_bases: dict[str, Path], tmp_path: Path) -> list[str]:
    return options(tiny_bases["llama"], tmp_path)


def losses(cli: Any) -> dict[int, float]:
    from tensorboard_events import logged

    return dict(logged(Path(cli.trainer.log_dir), "train/loss"))


def test_both_engines_train_alike(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    native, fused = (run("fit", [*words, f"--model.engine={engine}"]) for engine in ("native", "fused"))
    assert "Engine: fused; 2 of 2 layers keep their activations" in capsys.readouterr().out
    assert losses(fused) == pytest.approx(losses(native), rel=1e-4)
    for name, value in native.trainer.callback_metrics.items():
        if name.startswith("val/"):
            assert float(fused.trainer.callback_metrics[name]) == pytest.approx(float(value), rel=1e-3), name


@pytest.mark.parametrize(("first", "then"), [("native", "fused"), ("fused", "native")])
def test_a_checkpoint_of_one_engine_goes_on_under_the_other(
    tiny_bases: dict[str, Path], tmp_path: Path, first: str, then: str
) -> None:
    from interruptions import InterruptionError

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    often = "--checkpoint.every_n_train_steps=1"
    straight = run("fit", [*options(tiny_bases["llama"], whole), often, "--model.engine=native"])
    words = [*options(tiny_bases["llama"], parts), often]
    stop = ["--trainer.callbacks=interruptions.StopAt", "--trainer.callbacks.step=7"]
    with pytest.raises(InterruptionError):
        run("fit", [*words, f"--model.engine={first}", *stop])
    last = parts / "lightning_logs" / "version_0" / "checkpoints" / "last.ckpt"
    resumed = run("fit", [*words, f"--model.engine={then}", f"--ckpt_path={last}"])
    assert losses(resumed) == pytest.approx(losses(straight), rel=1e-3)
    for name, value in adapter_weights(straight).items():
        assert torch.allclose(adapter_weights(resumed)[name], value, atol=2e-3), name


def test_engines_test_and_write_alike_and_switch_the_adapter_off(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run("fit", words)
    capsys.readouterr()
    settings = (["native"], ["fused"], ["auto", "--data.eval_batch_size=auto"])
    native, *others = (
        run("test", [*words, f"--model.engine={engine}", *rest]).model.heard[0] for engine, *rest in settings
    )
    assert capsys.readouterr().out.count("Evaluations: by the fused engine\n") == 1  # on a CPU, auto
    for fused in others:
        for part in ("test", "base", "dev"):
            for one, other in zip(getattr(native, part), getattr(fused, part), strict=True):
                assert (one.id, one.text) == (other.id, other.text)
                assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5, rel=1e-6)
        assert [one.logprobs for one in fused.test] != [one.logprobs for one in fused.base]
        assert fused.prior == pytest.approx(native.prior, abs=1e-5)
    assert any(one.text for one in native.test)


@pytest.mark.parametrize("checkpointing", ["offload", "full", "none", "1"])
def test_checkpointing_changes_memory_alone(words: list[str], checkpointing: str) -> None:
    short = [*words, "--trainer.max_steps=3", "--trainer.limit_val_batches=0"]
    native = run("fit", [*short, "--model.engine=native"])
    fused = run("fit", [*short, "--model.engine=fused", f"--model.checkpointing={checkpointing}"])
    assert losses(fused) == pytest.approx(losses(native), rel=1e-4)


def test_where_weights_wait_changes_memory_alone(words: list[str]) -> None:
    short = [*words, "--trainer.max_steps=3", "--model.generate=true", "--trainer.val_check_interval=3"]
    plain = run("fit", [*short, "--model.engine=native"])
    fused_settings = ["--model.embedding=host", "--model.head=host"]
    for engine in (["--model.engine=native"], ["--model.engine=fused", "--model.weights=cached"]):
        other = run("fit", [*short, *engine, *fused_settings])
        assert losses(other) == pytest.approx(losses(plain), rel=1e-4)
        for name, value in plain.trainer.callback_metrics.items():
            if name.startswith("val/"):
                assert float(other.trainer.callback_metrics[name]) == pytest.approx(float(value), rel=1e-3)


def test_an_embedding_of_another_kind_is_refused_on_the_host(tiny_bases: dict[str, Path]) -> None:
    class Scaled(torch.nn.Embedding):
        """As Gemma's."""

    def load(device: torch.device) -> Any:
        model: Any = AutoModelForCausalLM.from_pretrained(tiny_bases["llama"])
        model.get_input_embeddings().__class__ = Scaled
        return model

    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    load_model(load, strategy, embedding="device", head="host", once=lambda: True)
    with pytest.raises(
        InputError, match=r"^--model.embedding host: .* its Scaled can't stay on the host: .*: use device$"
    ):
        load_model(load, strategy, embedding="host", head="device", once=lambda: True)


def test_auto_takes_the_budget_and_the_layers_that_fit_and_the_loader_keeps_to_them(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    short = [*words, "--trainer.max_steps=1", "--trainer.limit_val_batches=0", "--model.engine=fused"]
    auto = ["--data.micro_batch_tokens=auto"]
    plenty = run("fit", [*short, *auto])  # on a CPU there is nothing to go by
    assert plenty.datamodule.micro_batch_tokens == 2048
    memory: dict[str, int] = {}
    monkeypatch.setattr("medqlora.trainer.step_hooks.usable_memory", lambda device: memory["bytes"])
    found = []
    for memory["bytes"] in (10**10, 0):
        cli = run("fit", [*short, *auto])
        planned, budget = cli.model.planned, cli.datamodule.micro_batch_tokens
        assert planned is not None
        assert cli.datamodule._loader.micro_batch_tokens == budget == planned.micro_batch_tokens
        found.append((budget, cli.model.chosen.decoder.recomputed, planned.setting.cached))
    whole = max(len(one.prompt) + len(one.completion) for one in cli.datamodule.train)
    (most, none_again, cached), (least, all_again, no_cache) = found
    assert (none_again, cached) == (0, 2)
    assert most > least == whole
    assert (all_again, no_cache) == (1, 0)  # the last layer never computes again
    assert "Plan: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--data.packing=padded", "--model.engine fused: not possible here: rows are to be padded"),
        ("--model.lora.use_dora=true", "--model.engine fused: not possible here: "),
        ("--model.backend.quantization=none", "--model.engine fused: not possible here: "),
    ],
)
def test_what_it_cant_run_is_said_where_it_is_asked_for(words: list[str], option: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        run("fit", [*words, "--model.engine=fused", option, "--trainer.max_steps=1"])


@pytest.mark.parametrize(
    "option", ["--model.lora.use_dora=true", "--data.packing=padded", "--trainer.max_steps=1"]
)
def test_auto_says_why_it_is_native(
    words: list[str], option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run("fit", [*words, option, "--trainer.max_steps=1", "--trainer.limit_val_batches=0"])
    assert "Engine: native (" in capsys.readouterr().out


def test_an_engine_whose_rows_differ_is_not_taken(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from medqlora.fused import FusedDecoder

    original = FusedDecoder.hidden

    def crossing(self: Any, batch: Any, rows: Any) -> Any:  # as if the pack were one example
        return original(self, batch._replace(lengths=batch.lengths.sum()[None]), rows)

    monkeypatch.setattr(FusedDecoder, "hidden", crossing)
    with pytest.raises(InputError, match="its rows differ from the model's own"):
        run("fit", [*words, "--model.engine=fused", "--trainer.max_steps=1"])


@pytest.mark.parametrize("engine", ["fused", "native"])
def test_a_large_pack_whose_loss_is_not_its_examples_is_refused_and_the_furthest_named(
    engine: str, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The probe's few short rows are right, and the fourth example of a pack has other positions."""
    from medqlora.fused import FusedDecoder
    from medqlora.models import Decoder

    decoder: Any = FusedDecoder if engine == "fused" else Decoder

    def wrong(batch: Any) -> Any:
        if len(batch.lengths) < 4:
            return batch
        start, stop = batch.lengths[:3].sum(), batch.lengths[:4].sum()
        positions = batch.position_ids.clone()
        positions[0, start:stop] *= 2
        return batch._replace(position_ids=positions)

    for name in ("loss_sum", "hidden"):
        original = getattr(decoder, name)
        monkeypatch.setattr(
            decoder, name, lambda self, batch, *rows, run=original: run(self, wrong(batch), *rows)
        )
    with pytest.raises(
        InputError,
        match=r"loss of the largest pack, 4 examples, is .*furthest apart at .*train\.jsonl:\d+ \(id q",
    ):
        run("fit", [*words, f"--model.engine={engine}"])
    run("fit", [*words, f"--model.engine={engine}", "--model.preflight=false", "--trainer.max_steps=1"])


def test_examples_beyond_the_models_window_are_refused_before_the_first_step(
    words: list[str], tmp_path: Path
) -> None:
    base = build_base(tmp_path / "windowed", "mistral", layers=1, sliding_window=16)
    with pytest.raises(
        InputError, match=r"its attention sees the last 16 tokens, and the longest example has"
    ):
        run("fit", [*words, f"--model.backend.base={base}", "--model.engine=fused"])
