"""A base is loaded alone, without an adapter beside it, and a folder that is no base says what to give."""

import shutil
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from base_files import WEIGHTS, check, load, logits, make_adapter, refused
from tiny import hub_cache

from medqlora.models import LoRA, hub


@pytest.mark.parametrize("quantization", ["none", "nf4"])
@pytest.mark.parametrize("weights", [True, False])
def test_an_adapter_in_a_bases_folder_is_not_put_on_and_said(
    base: Path, weights: bool, quantization: str
) -> None:
    bare, identity = logits(load(base, None, quantization)), hub.identity(str(base))
    trainable = check(base, quantization).load(
        lora=LoRA(r=4), adapter=None, device=torch.device("cpu"), dtype=torch.float32, seed=0
    )
    expected = [name for name, _ in trainable.named_parameters()]
    make_adapter(base, base)
    if not weights:
        (base / "adapter_model.safetensors").unlink()
    hub.clear_caches()
    backend = check(base, quantization)
    assert backend.remarks() == (
        f"Note: '{base}' also holds adapter_config.json; the base alone is used, without that adapter",
    )
    model = load(base, None, quantization)
    assert torch.equal(logits(model), bare)
    assert not any("lora_" in name for name, _ in model.named_parameters())
    assert backend.identity() == identity
    again = backend.load(
        lora=LoRA(r=4), adapter=None, device=torch.device("cpu"), dtype=torch.float32, seed=0
    )
    assert [name for name, _ in again.named_parameters()] == expected


def test_the_handed_base_with_an_adapter_is_the_good_one(cases: Path) -> None:
    good, other = cases / "models" / "good", cases / "models" / "merged_with_adapter"
    assert torch.equal(logits(load(other, None)), logits(load(good, None)))
    assert hub.identity(str(other)) == hub.identity(str(good))


def test_the_hubs_base_with_an_adapter_is_loaded_alone_too(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = logits(load(base, None))
    make_adapter(base, base)
    hub_cache(tmp_path / "hub", "owner/with-adapter", base)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    backend = check("owner/with-adapter")
    assert "the base alone is used" in backend.remarks()[0]
    assert torch.equal(logits(load(Path("owner/with-adapter"), None)), bare)


def test_a_loader_that_takes_any_adapter_gets_a_folder_without(base: Path) -> None:
    with hub.bare_folder(str(base)) as place:
        assert place == str(base)
    make_adapter(base, base)
    with hub.bare_folder(str(base)) as place:
        names = {file.name for file in Path(place).iterdir()}
        assert (Path(place) / WEIGHTS).read_bytes() == (base / WEIGHTS).read_bytes()
    assert names == {file.name for file in base.iterdir() if not file.name.startswith("adapter_")}
    assert not Path(place).exists()


# ---- folders that are no base ----------------------------------------------------------------------


def test_an_adapter_given_as_base_is_told_with_both_options(base: Path, tmp_path: Path) -> None:
    adapter = make_adapter(base, tmp_path / "adapter")
    expected = (
        f"--model.backend.base: '{adapter}' is an adapter (of the base '{base}'), not a base: pass --model.adapter "
        f"{adapter} and --model.backend.base {base}"
    )
    assert refused(adapter) == expected
    shutil.copy(base / "config.json", adapter)  # as some trainers leave it
    hub.clear_caches()
    assert refused(adapter) == expected


def test_an_adapter_of_the_hub_given_as_base_is_told(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub_cache(tmp_path / "hub", "owner/adapter", make_adapter(base, tmp_path / "adapter"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    assert "'owner/adapter' is an adapter (of the base" in refused("owner/adapter")


def test_a_runs_folder_a_file_and_a_folder_around_the_base_are_told(base: Path, tmp_path: Path) -> None:
    run_folder = tmp_path / "version_0"
    make_adapter(base, run_folder / "adapter")
    assert f"'{run_folder / 'adapter'}' is an adapter" in refused(run_folder)
    assert refused(base / WEIGHTS).endswith("is a file: give its folder")
    around = tmp_path / "around"
    shutil.copytree(base, around / "model")
    assert f"did you mean '{around / 'model'}'?" in refused(around)
    snapshot = hub_cache(tmp_path / "hub", "owner/name", base)
    assert f"did you mean '{snapshot}'?" in refused(snapshot.parents[1])
