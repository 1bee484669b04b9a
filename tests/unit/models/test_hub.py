"""What is said when a base can't be had, and what tells one base from another."""

import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import build_base

from medqlora.errors import InputError
from medqlora.models import hub


def identity(folder: Path) -> str:
    hub.identity.cache_clear()
    return hub.identity(str(folder))


def message(function: object, base: str | Path) -> str:
    with pytest.raises(InputError) as caught:
        function(str(base))  # type: ignore[operator]
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- identity ---------------------------------------------------------------------------------------


def test_a_moved_base_is_the_same_base(base: Path, tmp_path: Path) -> None:
    before = identity(base)
    assert before.startswith("sha256:")
    assert identity(base.rename(tmp_path / "elsewhere")) == before


def test_other_weights_of_the_same_shape_are_another_base(base: Path, tmp_path: Path) -> None:
    assert identity(build_base(tmp_path / "other", "llama", seed=1)) != identity(base)


def test_an_adapter_merged_into_the_last_layer_makes_another_base(base: Path) -> None:
    before = identity(base)
    file = base / "model.safetensors"
    tensors = load_file(file)
    name = next(name for name in sorted(tensors, reverse=True) if "v_proj" in name)
    tensors[name] = tensors[name] + torch.randn_like(tensors[name]) * 1e-3
    save_file(tensors, file, {"format": "pt"})
    assert identity(base) != before


def test_a_change_behind_a_large_vocabulary_is_seen(tmp_path: Path) -> None:
    """The first MiB of a real base's file is vocabulary, which fine-tuning leaves as it is."""
    folder = tmp_path / "large"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    tensors = {"a.embed": torch.zeros(1 << 20), "z.layer": torch.zeros(1 << 16)}
    save_file(tensors, folder / "model.safetensors")
    before = identity(folder)
    save_file({**tensors, "z.layer": torch.full((1 << 16,), 1e-3)}, folder / "model.safetensors")
    assert identity(folder) != before


def test_another_configuration_is_another_base_but_not_another_transformers_version(base: Path) -> None:
    before = identity(base)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(
        json.dumps({**config, "transformers_version": "0", "_name_or_path": "x"})
    )
    assert identity(base) == before
    (base / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.5}))
    assert identity(base) != before


def test_torchs_own_format_has_an_identity_too(base: Path) -> None:
    tensors = load_file(base / "model.safetensors")
    (base / "model.safetensors").unlink()
    torch.save(tensors, base / "pytorch_model.bin")
    before = identity(base)
    name = sorted(tensors)[-1]
    torch.save({**tensors, name: tensors[name] + 1}, base / "pytorch_model.bin")
    assert identity(base) != before


def test_a_hub_base_is_its_name_and_revision() -> None:
    assert hub.identity("owner/model") == "owner/model"
    assert hub.identity("owner/model", "v2") == "owner/model@v2"


@pytest.mark.parametrize("content", [b"", struct.pack("<Q", 900) + b'{"a": ', b"not a model at all"])
def test_a_cut_weight_file_is_named(base: Path, content: bytes) -> None:
    (base / "model.safetensors").write_bytes(content)
    assert "model.safetensors' is not a whole safetensors file: copy or download it again" in message(
        hub.identity, base
    )


# --- what is said -----------------------------------------------------------------------------------

ALL = pytest.mark.parametrize("function", [hub.load_config, hub.load_tokenizer, hub.identity])


@ALL
def test_a_missing_folder_names_option_value_and_fix(function: object, tmp_path: Path) -> None:
    missing = tmp_path / "nowhere"
    assert message(function, missing) == (
        f"--model.backend.base: there is no folder '{missing}': give a model's folder or its Hub name"
    )
    assert "there is no folder './nowhere'" in message(function, "./nowhere")


@ALL
def test_a_folder_that_is_no_model_says_what_it_lacks(function: object, tmp_path: Path) -> None:
    assert message(function, tmp_path) == (
        f"--model.backend.base: '{tmp_path}' holds no config.json: it is not a transformers model"
    )


def test_a_base_without_tokenizer_says_so(base: Path) -> None:
    for file in base.glob("*token*"):
        file.unlink()
    text = message(hub.load_tokenizer, base)
    assert text.startswith(f"--model.backend.base: no tokenizer can be loaded from '{base}' (")
    assert text.endswith("): copy the base's tokenizer.json and tokenizer_config.json into it")


@pytest.mark.parametrize("text", ["{", '{"model_type": "no-such-family"}', "[]"])
def test_a_broken_configuration_is_named(base: Path, text: str) -> None:
    (base / "config.json").write_text(text)
    text = message(hub.load_config, base)
    assert text.startswith(f"--model.backend.base: {base}/config.json can't be used (")
    assert "): correct it, or take a base of a family" in text


def test_a_tokenizer_without_end_token_is_refused_since_no_answer_could_end(base: Path) -> None:
    file = base / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    settings.pop("eos_token")
    file.write_text(json.dumps(settings))
    assert "has no end token: answers could not end" in message(hub.load_tokenizer, base)


def test_a_tokenizer_without_padding_token_pads_with_its_end_token(base: Path) -> None:
    file = base / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    settings.pop("pad_token")
    file.write_text(json.dumps(settings))
    tokenizer = hub.load_tokenizer(str(base))
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == 1


@pytest.mark.parametrize("function", [hub.load_config, hub.load_tokenizer])
def test_an_unreachable_hub_says_how_to_use_a_local_copy(function: object) -> None:
    text = message(function, "owner/no-such-model")
    assert text.startswith("--model.backend.base: 'owner/no-such-model' can't be had from the Hub (")
    assert text.endswith("check the name and the connection, or download it elsewhere and pass the folder")
    assert len(text) < 400


def test_a_gated_base_says_how_to_get_access(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoConfig

    def refuse(*_: object, **__: object) -> None:
        raise OSError(
            "You are trying to access a gated repo.\nMake sure to have access to it.\n401 Client Error."
        )

    monkeypatch.setattr(AutoConfig, "from_pretrained", refuse)
    assert message(hub.load_config, "meta-llama/x").endswith(
        "accept its licence on its Hub page, then `hf auth login`"
    )
