"""The check without Lightning refuses nothing that Lightning's parser accepts, and knows what it knows."""

import inspect
from pathlib import Path

import pytest
from option_cases import FILES, LINES, write_parts

from medqlora.config import trainer
from medqlora.config.check import check_options
from medqlora.config.optimizers import TORCH_OPTIMIZERS
from medqlora.config.words import with_config
from medqlora.errors import InputError

CONFIGS = Path(__file__).parents[3] / "configs"
DEMO = f"--config={CONFIGS / 'demo.yaml'}"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with the files that some lines name."""
    monkeypatch.chdir(tmp_path)
    write_parts(str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("line", LINES, ids=map(" ".join, LINES))
def test_no_option_is_refused_that_the_parser_accepts(line: list[str]) -> None:
    check_options("fit", with_config([DEMO, *line]))


@pytest.mark.parametrize("text", FILES)
def test_no_configuration_is_refused_that_the_parser_accepts(text: str, folder: Path) -> None:
    (folder / "mine.yaml").write_text(text, encoding="utf-8")
    check_options("fit", with_config([DEMO, "--config=mine.yaml"]))


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
@pytest.mark.parametrize("verb", ["fit", "validate", "test", "predict"])
def test_every_shipped_configuration_passes(path: Path, verb: str) -> None:
    below = (
        []
        if path.name in ("demo.yaml", "qlora.yaml", "suite.yaml")
        else ["--config", str(CONFIGS / "qlora.yaml")]
    )
    check_options(verb, with_config([*below, "--config", str(path)]))


def test_a_value_that_another_option_would_replace_is_refused_with_its_place(folder: Path) -> None:
    mine = folder / "mine.yaml"
    mine.write_text("model:\n  generate: false\n  compare_base: false\n", encoding="utf-8")
    with pytest.raises(
        InputError, match=r"mine\.yaml:3: model\.compare_base: .*write compare_base: .* top level"
    ):
        check_options("test", with_config([DEMO, "--config=mine.yaml"]))
    mine.write_text("compare_base: false\nmodel:\n  compare_base: false\n", encoding="utf-8")
    check_options("test", with_config([DEMO, "--config=mine.yaml"]))


def test_options_before_a_configuration_mean_the_same_as_after_it() -> None:
    words = ["--model.backend.seed=7", "--model.lora.r", "2"]
    assert with_config([*words, DEMO]) == with_config([DEMO, *words])


def test_a_class_of_the_user_s_own_is_left_to_the_parser(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wards.py").write_text("raise RuntimeError('the check imports nothing of the user')\n")
    monkeypatch.syspath_prepend(tmp_path)
    check_options("fit", with_config([DEMO, "--data.source=wards.Source", "--data.source.wards=3"]))
    check_options("fit", with_config([DEMO, "--model.backend=wards.Backend", "--model.backend.x=3"]))


def test_the_trainers_options_are_lightnings() -> None:
    from lightning.pytorch import Trainer

    theirs = {name: one.default for name, one in inspect.signature(Trainer).parameters.items()}
    assert {name: default for name, (_, default, _) in trainer.OPTIONS.items()} == theirs
    assert trainer.DEFAULTS.keys() <= theirs.keys()


def test_the_precisions_are_those_of_the_models() -> None:
    from medqlora.models.precision import DTYPES

    assert set(trainer.PRECISIONS.values()) <= DTYPES.keys() <= trainer.PRECISIONS.keys()


def test_the_names_of_optimizers_are_torchs() -> None:
    import torch

    theirs = {
        name
        for name, kind in vars(torch.optim).items()
        if inspect.isclass(kind) and issubclass(kind, torch.optim.Optimizer)
    }
    # of several versions of torch: an older one lacks some
    assert theirs - {"Optimizer", "SparseAdam"} <= set(TORCH_OPTIMIZERS)
