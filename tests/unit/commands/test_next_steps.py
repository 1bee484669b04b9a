"""After a fit, only what can be typed next is printed."""

import shlex
from pathlib import Path

from medqlora.artifacts.run_folder import RunFolder
from medqlora.commands.next_steps import after_fit


def test_each_line_works_as_it_stands_and_names_nothing_that_is_not_there(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "a folder" / "version_0")
    run.adapter.mkdir(parents=True)
    assert after_fit(run, run.adapter, tests=True) == []  # another program's logger, and no configuration
    run.config.touch()
    (line,) = after_fit(run, run.adapter, tests=True)
    words = ["medqlora", "test", "--config", str(run.config), "--model.adapter", str(run.adapter)]
    assert shlex.split(line) == ["Next:", *words]
    assert after_fit(run, run.adapter, tests=False) == []
    assert after_fit(run, None, tests=True) == []
    (run.path / "events.out.tfevents.1").touch()
    lines = after_fit(run, run.adapter, tests=True)
    assert shlex.split(lines[1]) == ["tensorboard", "--logdir", str(run.path.parent)]
    assert after_fit(run, None, tests=True) == [
        f"Next:    {shlex.join(['tensorboard', '--logdir', str(run.path.parent)])}"
    ]
