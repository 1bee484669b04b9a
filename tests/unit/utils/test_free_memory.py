"""A container's limit counts, not the machine's memory alone."""

from pathlib import Path

import psutil

from medqlora.utils.free_memory import free_host_bytes


def test_the_smaller_of_machine_and_container_is_free(tmp_path: Path) -> None:
    machine = psutil.virtual_memory().total
    assert 0 < free_host_bytes(tmp_path) <= machine  # no control group
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("5000\n")
    assert free_host_bytes(tmp_path) > 5000
    (tmp_path / "memory.max").write_text("12000\n")
    assert free_host_bytes(tmp_path) == 7000
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text("4000")
    (tmp_path / "memory" / "memory.usage_in_bytes").write_text("4096")
    assert free_host_bytes(tmp_path) == 0
