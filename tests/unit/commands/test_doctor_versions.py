"""The versions that `medqlora doctor` finds, and a release made to do harm."""

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

from medqlora.commands.diagnosis.versions import versions


def test_the_versions_are_those_that_are_installed() -> None:
    found = {one.name: one for one in versions()}
    for name in ("torch", "lightning", "transformers", "peft", "bitsandbytes", "datasets", "medqlora"):
        assert found[name].state == "ok"
        assert found[name].found == importlib.metadata.version(name)
    assert {"unsloth", "triton", "flash-attn"} <= found.keys()


def install(folder: Path, name: str, version: str) -> None:
    """What a package's installer leaves for `importlib.metadata`."""
    about = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


@pytest.mark.parametrize("version", ["0.1.0", "99.0"])
def test_a_version_outside_of_the_bounds_is_wrong_and_the_fix_installs_one_within(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path / "site", "peft", version)
    install(tmp_path / "site", "scipy", version)
    monkeypatch.syspath_prepend(tmp_path / "site")
    found = {one.name: one for one in versions()}
    wrong = {name for name, one in found.items() if one.state == "wrong"}
    assert wrong == {"peft", "scipy"}  # scipy is shown, though it isn't when all is well
    bounds = next(text for text in importlib.metadata.requires("medqlora") or () if text.startswith("peft"))
    fix = str(found["peft"].fix)
    assert version in found["peft"].found
    assert fix.startswith("pip install 'peft")
    assert set(fix.removeprefix("pip install 'peft").rstrip("'").split(",")) == set(bounds[4:].split(","))


def test_a_malicious_release_is_named_and_never_imported(tmp_path: Path) -> None:
    site, trace = tmp_path / "site", tmp_path / "imported"
    install(site, "lightning", "2.6.3")
    (site / "lightning").mkdir()
    (site / "lightning" / "__init__.py").write_text(f"open({str(trace)!r}, 'w')\n")
    code = (
        f"import sys; sys.path.insert(0, {str(site)!r})\n"
        "from medqlora.cli import main; sys.exit(main(['doctor']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "2.6.3 was a malicious release" in done.stdout
    assert "pip uninstall lightning" in done.stdout
    assert not trace.exists()
