"""The folder of a cross-validation."""

from pathlib import Path

import pytest

from medqlora.artifacts.fold_group import FoldGroup
from medqlora.errors import InputError


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "there is no such folder"),
        ("", "it holds no group.json"),
        ("{", r"group\.json can't be read \(JSONDecodeError\)"),
        ("{}", r"group\.json can't be read \(KeyError\)"),
    ],
)
def test_a_folder_that_is_no_group_is_told_by_what_is_missing(
    tmp_path: Path, content: str | None, told: str
) -> None:
    folder = tmp_path / "cv_7"
    if content is not None:
        folder.mkdir()
    if content:
        (folder / "group.json").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=f"--ckpt_path .*cv_7: {told}: name a folder that"):
        FoldGroup(folder).record("--ckpt_path")
