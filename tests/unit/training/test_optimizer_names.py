"""An optimizer is found under the names that its users know it by."""

from pathlib import Path

import pytest
import torch
import yaml
from harness import options, refused, run
from torch import nn

from medqlora.errors import InputError
from medqlora.training.optim import build_optimizer, check_optimizer
from medqlora.training.optimizer_names import (
    FLAT_OPTIMIZERS,
    NamedOptimizer,
    class_path,
    nearest_name,
    optimizer_class,
    spelled_out,
)


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        *((one, one) for one in FLAT_OPTIMIZERS),
        *((one, "adamw") for one in ("AdamW", "ADAMW", "adamw_torch", "adamw_torch_fused", "adamw_hf")),
        *((one, "adamw_8bit") for one in ("AdamW8bit", "adamw8bit", "adamw-8bit", "adamw_bnb_8bit")),
        *((one, "paged_adamw_8bit") for one in ("PagedAdamW8bit", "paged_adamw8bit")),
        *((one, "SGD") for one in ("SGD", "sgd", "Sgd")),
        *((one, "Adafactor") for one in ("Adafactor", "adafactor")),
        *((one, "RMSprop") for one in ("rmsprop", "RMSProp", "rms_prop")),
        ("Adam", "Adam"),
        ("adam8bit", "Adam8bit"),
        ("lion_8bit", "Lion8bit"),
        ("paged_lion_8bit", "PagedLion8bit"),
        ("rmsprop_bnb_8bit", "RMSprop8bit"),
        ("paged_adamw_32bit", "PagedAdamW32bit"),
        ("paged_ademamix_8bit", "PagedAdEMAMix8bit"),
    ],
)
def test_names_of_torch_bitsandbytes_and_transformers_are_understood(name: str, canonical: str) -> None:
    found = NamedOptimizer(name)
    assert found == canonical
    assert NamedOptimizer(found) == found  # as a run's config.yaml has it


@pytest.mark.parametrize(
    "name", ["adamwx", "", "Optimizer", "SparseAdam", "torch.optim.SGD", "os.system", "lr"]
)
def test_other_words_are_no_optimizer(name: str) -> None:
    with pytest.raises(ValueError, match="there is no optimizer"):
        NamedOptimizer(name)


@pytest.mark.parametrize(
    "name", ["SGD", "Adam", "Adafactor", "Lion8bit", "Adam8bit", "AdEMAMix8bit", "Adagrad8bit"]
)
def test_a_named_optimizer_takes_a_step_with_the_run_s_rate_and_decay(name: str) -> None:
    weight = nn.Parameter(torch.ones(80, 64))
    built = build_optimizer(NamedOptimizer(name), [("w", weight)], learning_rate=0.25, weight_decay=0.5)
    assert type(built) is optimizer_class(NamedOptimizer(name))
    assert [(group["lr"], group["weight_decay"]) for group in built.param_groups] == [(0.25, 0.5)]
    weight.grad = torch.ones_like(weight)
    built.step()
    assert (weight < 1).all()
    module, _, kind = class_path(NamedOptimizer(name)).rpartition(".")
    assert type(built).__name__ == kind
    assert type(built).__module__.startswith(module)


def test_a_weight_decay_that_would_be_ignored_is_refused() -> None:
    for given in ("adamw", "AdamW", "SGD"):
        check_optimizer(given, 0.1)
    check_optimizer(torch.optim.SGD, 0.0)
    with pytest.raises(
        InputError, match=r"^--model.weight_decay 0.1: .*SGD does not take it: write --model.op"
    ):
        check_optimizer(torch.optim.SGD, 0.1)
    with pytest.raises(
        InputError, match=r"^--model.weight_decay 0.1: .*Rprop does not take it: leave it out"
    ):
        check_optimizer("rprop", 0.1)


def test_options_of_a_class_make_a_name_that_class() -> None:
    assert spelled_out(["fit", "--model.optimizer", "AdamW"]) == ["fit", "--model.optimizer", "AdamW"]
    for words in (["--model.optimizer", "AdamW"], ["--model.optimizer=AdamW"]):
        changed = spelled_out(["fit", *words, "--model.optimizer.betas=[0.8,0.9]"])
        assert changed[-2].removeprefix("--model.optimizer=") == "torch.optim.AdamW"
    assert spelled_out(["--model.optimizer.class_path", "SGD"])[-1] == "torch.optim.SGD"
    assert spelled_out(["--model.optimizer.class_path=lion"]) == [
        "--model.optimizer.class_path=bitsandbytes.optim.Lion"
    ]
    kept = ["--model.optimizer", "my.Own", "--model.optimizer.betas=3", "AdamW"]
    assert spelled_out(kept) == kept


@pytest.mark.parametrize(
    ("name", "near"), [("Adafator", "Adafactor"), ("adamw_8bits", "adamw_8bit"), ("xyz", None)]
)
def test_a_mistyped_name_has_a_nearest(name: str, near: str | None) -> None:
    assert nearest_name(name) == near


def test_the_command_line_and_a_configuration_take_the_names(
    tiny_bases: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*options(tiny_bases["llama"], tmp_path, train=4, dev=0, test=0), "--trainer.max_epochs=1"]
    said = refused(capsys, "fit", *words, "--model.optimizer", "Adafator")
    assert said.endswith("or a class_path: did you mean 'Adafactor'?\n")
    assert not (tmp_path / "lightning_logs").exists()
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("model: {optimizer: lion_8bit}\n", encoding="utf-8")
    cli = run("fit", [*words, f"--config={overlay}"])
    assert type(cli.model.optimizers().optimizer).__name__ == "Lion8bit"
    written = yaml.safe_load(
        (tmp_path / "lightning_logs" / "version_0" / "config.yaml").read_text(encoding="utf-8")
    )
    assert written["model"]["optimizer"] == "Lion8bit"
