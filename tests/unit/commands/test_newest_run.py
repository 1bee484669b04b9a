"""The run that a command takes where none is named."""

import json
from pathlib import Path

import pytest

from medqlora.artifacts.run_folder import RunFolder
from medqlora.artifacts.runs import RunRecord
from medqlora.cli import main
from medqlora.commands.newest_run import adapter_or_newest, run_or_newest
from medqlora.errors import InputError


def stored(logs: Path, state: str, started: str, finished: str | None, *, adapter: bool = True) -> RunFolder:
    """A run's folder, as a fit leaves it."""
    logs.mkdir(exist_ok=True)
    run = RunFolder.new(logs)
    RunRecord("fit", "finished", "base", "identity", started=started, finished=finished, pid=1).write(
        run.path
    )
    record = json.loads(run.record_file.read_text())
    run.record_file.write_text(json.dumps({**record, "state": state, "host": "another"}))
    if adapter:
        run.adapter.mkdir()
        (run.adapter / "adapter_config.json").write_text("{}")
    return run


def test_it_is_the_one_that_finished_last_and_a_named_one_wins(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    late = stored(logs, "finished", "2026-01-01T00:00:00", "2026-01-05T00:00:00")
    stored(logs, "finished", "2026-01-02T00:00:00", "2026-01-03T00:00:00")
    stored(logs, "interrupted", "2026-01-04T00:00:00", None)
    assert adapter_or_newest(None, str(logs)) == str(late.adapter)
    assert adapter_or_newest("mine", str(logs)) == "mine"
    assert run_or_newest(None, str(logs)) == late
    assert run_or_newest(tmp_path / "mine", str(logs)).path == tmp_path / "mine"


def test_without_a_finished_run_an_export_takes_the_newest_that_began(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    stored(logs, "interrupted", "2026-01-01T00:00:00", None, adapter=False)
    newest = stored(logs, "failed", "2026-01-02T00:00:00", "2026-01-03T00:00:00", adapter=False)
    assert run_or_newest(None, str(logs)) == newest
    with pytest.raises(InputError, match=r"--adapter: .* holds no finished run"):
        adapter_or_newest(None, str(logs))


def test_a_run_without_a_checkpoint_is_wrong_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = stored(tmp_path / "logs", "finished", "2026-01-01T00:00:00", "2026-01-02T00:00:00")
    assert main(["export", "--ckpt_path", str(run.path)]) == 2
    assert f"--ckpt_path: {run.path} holds no checkpoint" in capsys.readouterr().err
