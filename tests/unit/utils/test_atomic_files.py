"""A file that is replaced has its old content or its new one, and nothing is left beside it."""

import os
from pathlib import Path

import pytest

from medqlora.utils.digests import file_digest
from medqlora.utils.files import replacing, write_text


def test_an_error_inside_the_block_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_text(path, "old é\n")

    def fail() -> None:
        with replacing(path) as stream:
            stream.write(b"half")
            raise RuntimeError("the power failed")

    with pytest.raises(RuntimeError, match="the power failed"):
        fail()
    assert path.read_bytes() == "old é\n".encode()
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_of_one_process_do_not_share_a_part(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with replacing(path) as first, replacing(path, durable=False) as second:
        first.write(b"first")
        second.write(b"second")
    assert path.read_bytes() == b"first"  # the block that ended last
    assert list(tmp_path.iterdir()) == [path]


def test_a_digest_is_that_of_all_pieces(tmp_path: Path) -> None:
    import hashlib

    content = os.urandom((1 << 20) + 3)
    (tmp_path / "file").write_bytes(content)
    assert file_digest(tmp_path / "file") == {
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
