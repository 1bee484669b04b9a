"""What a GGUF file says of the base model and its licence."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from exporting import export_words

from medqlora.artifacts.gguf import writing
from medqlora.artifacts.origin import License, Origin, license_of
from medqlora.cli import main

gguf = pytest.importorskip("gguf", reason="the extra [gguf] is not installed")
pytest.importorskip("xllamacpp", reason="the extra [gguf] is not installed")


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
