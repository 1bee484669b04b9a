"""The declared dependencies are the packages that are imported."""

import ast
import re
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
#: import name → name of the distribution, where they differ
DISTRIBUTIONS = {
    "yaml": "pyyaml",
    "sklearn": "scikit-learn",
    "huggingface_hub": "huggingface-hub",
    "ir_measures": "ir-measures",
    "PIL": "pillow",
    "faiss": "faiss-cpu",
    "opensearchpy": "opensearch-py",
}
#: imported and not declared
NOT_DECLARED = {
    "triton": "the CUDA builds of torch bring it; kernels are imported on a GPU alone",
    "flash_attn": "`doctor` reports whether it is installed; nothing needs it",
    "trl": "`bench` compares with it where it is installed",
    "unsloth": "an extra",
    "torchvision": "Unsloth depends on it; `UnslothVision` asks whether it is there",
    "gguf": "the extra `gguf`: GGUF exports alone need it",
    "PIL": "the extra `images`: imported when an image is read",
    "pydicom": "the extra `images`: imported when a DICOM file is read",
    "wfdb": "the extra `ecg`: the source ECGImages alone needs it",
    "pypdf": "the extra `pdf`: `index` alone needs it, and only for PDF",
    "faiss": "the extra `faiss`: vectors above a million passages alone need it",
    "opensearchpy": "the extra `opensearch`: an index on a server alone needs it",
    "sklearn": "the extras `library` and `tune`, which alone need it",
    "optuna": "the extra `tune`, which alone needs it",
    "xllamacpp": "the extra `gguf`: llama.cpp, which checks them",
    **dict.fromkeys(
        ("fastapi", "starlette", "pydantic", "uvicorn", "prometheus_client", "limits", "pypdf"),
        "the extra `serve`: `medqlora serve` says so where one is missing",
    ),
}
#: declared and not imported
NOT_IMPORTED: dict[str, str] = {}


def imported(folder: str) -> dict[str, str]:
    """Top-level name of each third-party import → a file that has it."""
    names: dict[str, str] = {}
    local = {path.stem for path in (ROOT / "tests").rglob("*.py")} | {"medqlora"}
    for path in sorted((ROOT / folder).rglob("*.py")):
        for name in _imports(ast.parse(path.read_text("utf-8"))):
            top = name.partition(".")[0]
            if top not in sys.stdlib_module_names | local:
                names.setdefault(top, str(path.relative_to(ROOT)))
    return names


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if called in ("import_module", "find_spec"):
                yield str(node.args[0].value)


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(*extras: str) -> set[str]:
    lines = [*PROJECT["dependencies"]]
    for extra in extras:
        lines += PROJECT["optional-dependencies"][extra]
    return {normalized(Requirement(line).name) for line in lines}


def distribution(name: str) -> str:
    return normalized(DISTRIBUTIONS.get(name, name))


def test_every_imported_package_is_declared() -> None:
    missing = {
        name: file
        for name, file in imported("medqlora").items()
        if distribution(name) not in declared() and name not in NOT_DECLARED
    }
    assert missing == {}


def test_every_declared_package_is_imported() -> None:
    used = {distribution(name) for name in imported("medqlora")}
    assert declared() - used == NOT_IMPORTED.keys()
    assert NOT_DECLARED.keys() <= imported("medqlora").keys()


def test_every_package_that_the_tests_import_is_declared_for_development() -> None:
    installed = metadata.packages_distributions()  # modules that a test writes are none
    missing = {
        name: file
        for name, file in imported("tests").items()
        if name in installed and distribution(name) not in declared("dev") and name not in NOT_DECLARED
    }
    assert missing == {}


def test_every_declared_package_has_an_upper_bound_and_the_installed_version_is_within_its_bounds() -> None:
    for line in PROJECT["dependencies"]:
        requirement = Requirement(line)
        assert any(bound.operator == "<" for bound in requirement.specifier), line
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue  # of another Python
        assert requirement.specifier.contains(metadata.version(requirement.name), prereleases=True), line
