"""The installed packages, compared with medqlora's bounds."""

import platform
from importlib import metadata
from typing import TYPE_CHECKING

from medqlora.commands.diagnosis.finding import Finding
from medqlora.utils.versions import installed

if TYPE_CHECKING:
    from packaging.requirements import Requirement

#: malicious releases: such a package isn't imported, not even for its version
MALICIOUS = {"lightning": ("2.6.2", "2.6.3")}
#: always shown; other dependencies only where something is wrong with them
_SHOWN = ("torch", "lightning", "transformers", "peft", "bitsandbytes", "datasets")
_OPTIONAL = {
    "unsloth": "only medqlora.models.Unsloth needs it",
    "triton": "only a CUDA GPU needs it",
    "flash-attn": "only --model.backend.attention flash_attention_2 needs it",
}


def versions(needed: frozenset[str] = frozenset()) -> list[Finding]:
    """medqlora, Python and the dependencies, each compared with the bounds that medqlora was installed with.

    Args:
        needed: the optional packages that the configuration uses ("unsloth", "flash-attn").
    """
    from medqlora import __version__

    found = [Finding("versions", "medqlora", "ok", __version__), _python()]
    try:
        requirements = metadata.requires("medqlora") or []
    except metadata.PackageNotFoundError:
        fix = "pip install -e ."
        found.append(
            Finding("versions", "bounds", "note", f"unknown: medqlora is not installed as a package: {fix}")
        )
        requirements = []
    found += _dependencies(requirements)
    named = {finding.name for finding in found}
    found += [Finding("versions", name, "ok", installed(name) or "") for name in _SHOWN if name not in named]
    for name, use in _OPTIONAL.items():
        if name in named:
            continue
        version = installed(name)
        if version is not None:
            found.append(Finding("versions", name, "ok", version))
        elif name in needed:
            fix = f"pip install {name}, or another choice in the configuration"
            found.append(
                Finding("versions", name, "wrong", "not installed, and this configuration uses it", fix)
            )
        else:
            found.append(Finding("versions", name, "note", f"not installed: {use}"))
    return found


def _python() -> Finding:
    from packaging.specifiers import SpecifierSet

    version = platform.python_version()
    try:
        bounds = str(metadata.metadata("medqlora").json.get("requires_python", ""))
    except metadata.PackageNotFoundError:
        bounds = ""
    if SpecifierSet(bounds).contains(version, prereleases=True):
        return Finding("versions", "Python", "ok", version)
    fix = f"make a virtual environment with a Python {bounds}"
    return Finding("versions", "Python", "wrong", f"{version} is outside of {bounds}", fix)


def _dependencies(requirements: list[str]) -> list[Finding]:
    """The core's requirements, and those of an extra where it is installed."""
    from packaging.requirements import Requirement

    found = []
    for text in requirements:
        requirement = Requirement(text)
        name, version = requirement.name, installed(requirement.name)
        core = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if not core and (version is None or name not in _OPTIONAL):
            continue
        install = f"pip install '{name}{_extras(requirement)}{requirement.specifier}'"
        if version is None:
            found.append(Finding("versions", name, "wrong", "not installed", install))
        elif version in MALICIOUS.get(name, ()):
            fix = f"pip uninstall {name}, change the passwords and tokens this machine holds, then {install}"
            found.append(
                Finding("versions", name, "wrong", f"{version} was a malicious release: not imported", fix)
            )
        elif not requirement.specifier.contains(version, prereleases=True):
            outside = f"{version} is outside of {requirement.specifier}"
            found.append(Finding("versions", name, "wrong", outside, install))
        elif name in _SHOWN or not core:
            found.append(Finding("versions", name, "ok", version))
    return found


def _extras(requirement: "Requirement") -> str:
    return f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""


def malicious() -> str | None:
    """Name and version of an installed malicious release; None without one."""
    return next(
        (f"{name} {bad}" for name, bads in MALICIOUS.items() for bad in bads if installed(name) == bad), None
    )
