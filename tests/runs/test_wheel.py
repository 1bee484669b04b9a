"""The wheel, built from the sdist, is enough: it is installed alone and runs far from the checkout."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml

import medqlora

ROOT = Path(__file__).parents[2]
SOURCES = (
    "medqlora",
    "configs",
    "pyproject.toml",
    "setup.py",
    "README.md",
    "LICENSE",
    "THIRD_PARTY_LICENSES.md",
)
BUILD = "import sys; from setuptools import build_meta; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"


def built(kind: str, folder: Path, out: Path) -> Path:
    """The file that `build_sdist` or `build_wheel` makes of a folder."""
    out.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", BUILD, kind, str(out)], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return out / done.stdout.split()[-1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that holds the installed wheel and nothing else."""
    folder = tmp_path_factory.mktemp("release")
    tree, unpacked, site = folder / "tree", folder / "unpacked", folder / "site"
    tree.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, tree)
    with tarfile.open(built("build_sdist", tree, folder / "dist")) as archive:
        archive.extractall(unpacked, filter="data") if sys.version_info >= (3, 12) else archive.extractall(
            unpacked
        )
    wheel = built("build_wheel", next(unpacked.iterdir()), folder / "dist")
    words = ["install", "--quiet", "--no-deps", "--no-index", "--no-compile", "--disable-pip-version-check"]
    subprocess.run([sys.executable, "-m", "pip", *words, "--target", str(site), str(wheel)], check=True)
    return site


def run(site: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The installed program, as its own script begins it; the checkout is not on its path."""
    environment = {**os.environ, "PYTHONPATH": str(site)}
    return subprocess.run(
        [sys.executable, str(site / "bin" / "medqlora"), *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_wheel_holds_every_file_of_the_package_and_the_configurations(site: Path) -> None:
    listed = {path.relative_to(ROOT).as_posix() for path in (ROOT / "medqlora").rglob("*") if path.is_file()}
    wanted = {name for name in listed if "__pycache__" not in name}
    wanted |= {f"medqlora/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "configs").rglob("*.yaml")}
    there = {path.relative_to(site).as_posix() for path in (site / "medqlora").rglob("*") if path.is_file()}
    assert there == wanted
    licences = {path.name for path in site.glob("medqlora-*.dist-info/licenses/*")}
    assert licences == {"LICENSE", "THIRD_PARTY_LICENSES.md"}


def test_the_shipped_configurations_are_found_by_name_and_the_users_own_come_first(
    site: Path, tmp_path: Path
) -> None:
    assert run(site, tmp_path, "--version").stdout == f"medqlora {medqlora.__version__}\n"
    refused = run(site, tmp_path, "fit", "--config", "demo", "--data.batch_size", "0")
    assert refused.returncode == 2
    assert refused.stderr.endswith("--data.batch_size is 0: it has to be at least 1\n")
    near = run(site, tmp_path, "fit", "--config", "qlorra")
    assert "did you mean qlora?" in near.stderr
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "demo.yaml").write_text("data:\n  batch_sise: 3\n")
    own = run(site, tmp_path, "fit", "--config", "configs/demo.yaml")
    assert own.stderr.startswith("medqlora: error: configs/demo.yaml:2: data.batch_sise")


@pytest.mark.slow
@pytest.mark.skipif(
    "MEDQLORA_THOROUGH" not in os.environ, reason="every night: a whole fit in a cold process"
)
def test_a_fit_by_the_installed_wheel(site: Path, tmp_path: Path) -> None:
    done = run(site, tmp_path, "fit", "--config", "demo", "--trainer.max_epochs=1", "--data.train_samples=16")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "lightning_logs" / "version_0" / "adapter" / "adapter_model.safetensors").is_file()


def test_what_is_said_of_the_release_is_true_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == medqlora.__version__
    assert f"## [{medqlora.__version__}]" in (ROOT / "CHANGELOG.md").read_text("utf-8")
    major, minor, _ = medqlora.__version__.split(".")
    assert f"| {major}.{minor}.x | yes |" in (ROOT / "SECURITY.md").read_text("utf-8")
    for name in ("ci.yml", "newest.yml", "release.yml"):
        assert yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text("utf-8"))["jobs"]


def test_the_container_is_built_from_the_same_files() -> None:
    copied = (ROOT / "Dockerfile").read_text("utf-8").partition("FROM base AS cpu")[0].split()
    let_in = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    for name in SOURCES:
        assert name in copied
        assert f"!{name}" in let_in


def test_versions_are_listed_and_compared(capsys: pytest.CaptureFixture[str]) -> None:
    spec = importlib.util.spec_from_file_location("versions", ROOT / ".ci" / "versions.py")
    assert spec is not None
    assert spec.loader is not None
    versions = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(versions)
    tested = versions.read((ROOT / "requirements" / "tested-cpu.txt").read_text("utf-8").splitlines())
    assert {"torch", "transformers", "nbclient", "gguf", "fastapi"} <= tested.keys()
    found = versions.closure([versions.Requirement("jsonargparse[signatures]>=4,<5")])
    assert {"jsonargparse", "typeshed-client", "pyyaml"} <= found.keys()
    assert "| jsonargparse | 1.0 |" in versions.table({"jsonargparse": "1.0"}, found)
    assert versions.table(found, found) == "The same versions as tested."
    assert versions.without_upper(versions.Requirement("a[b]>=2,<3,!=2.1")) == "a[b]!=2.1,>=2"
    assert json.dumps(versions.read(["# x==1", "A_b==2"])) == '{"a-b": "2"}'
