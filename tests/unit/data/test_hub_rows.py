"""The one reader of the Hub, with the real `datasets` on a repository that lies on the disk."""

import pytest

from medqlora.data.sources.hub import read_hub
from medqlora.errors import InputError

ROWS = [{"id": f"test-{number}", "sent1": "Why?", "label": number % 4} for number in range(3)]


@pytest.fixture
def repository(lines, tmp_path, monkeypatch) -> str:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    lines(ROWS, "repository/test.json")
    lines(ROWS[:1], "repository/dev.json")
    return str(tmp_path / "repository")


def test_a_split_is_read_in_order_and_each_row_knows_its_place(repository):
    rows = read_hub(repository, None, "test", None, "--data.source.test", "pass a local copy")
    assert [dict(row.value) for row in rows] == ROWS
    assert [row.where for row in rows] == [f"{repository}/test:{number}" for number in (1, 2, 3)]


def test_a_file_called_dev_is_the_validation_split(repository):
    """As MedQA's `dev.json` on the Hub is."""
    rows = read_hub(repository, None, "validation", None, "--data.source.dev", "pass a local copy")
    assert [dict(row.value) for row in rows] == ROWS[:1]


def test_a_split_that_is_not_there_ends_with_what_to_do_in_one_line(repository):
    with pytest.raises(InputError) as found:
        read_hub(repository, None, "train", "v2", "--data.source.train", "pass a local copy: --x FILE")
    message = str(found.value)
    assert message.startswith(
        f"--data.source.train: {repository} (train, revision v2) can't be read from the Hub ("
    )
    assert message.endswith("): pass a local copy: --x FILE")
    assert "\n" not in message


def test_a_configuration_is_named_in_the_place(hub):
    hub["owner/set", "anatomy", "test", "abc"] = [{"question": "Why?"}]
    (row,) = read_hub("owner/set", "anatomy", "test", "abc", "--x", "y")
    assert row.where == "owner/set/anatomy/test:1"
