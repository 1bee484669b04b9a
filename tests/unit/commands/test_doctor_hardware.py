"""What `medqlora doctor` says of GPUs and of their driver."""

from pathlib import Path

import pytest
import torch

from medqlora.commands.diagnosis import hardware

NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="of a machine without a GPU")


@NO_GPU
def test_a_driver_that_torch_cant_use_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    (before,) = hardware.devices()
    program.write_text("#!/bin/sh\necho 535.104.05\necho 535.104.05\n")
    program.chmod(0o755)
    (found,) = hardware.devices()
    assert "none found" in before.found
    assert "the driver 535.104.05 is there" in found.found
    assert "install torch's CUDA build" in found.found


@NO_GPU
@pytest.mark.parametrize("script", ["exit 9", "sleep 20", "echo; echo"])
def test_an_nvidia_smi_that_fails_or_hangs_holds_nothing_up(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script.replace('sleep', 'exec sleep')}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    monkeypatch.setattr(hardware, "_SMI_LIMIT_S", 0.5)
    (found,) = hardware.devices()
    assert "none found" in found.found
