"""After a fit, only what can be typed next is printed."""

import shlex
from pathlib import Path

from medqlora.artifacts.run_folder import RunFolder
from medqlora.commands.fold_report import kept_for_test
from medqlora.commands.next_steps import after_fit, best_line


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


def test_an_accuracy_that_is_no_better_than_the_majoritys_has_a_word_beside_it() -> None:
    assert best_line("val/accuracy", 0.75, 0.552, "a.ckpt") == "Best val/accuracy: 0.7500  (a.ckpt)"
    told = "  (a.ckpt), no better than always the most frequent answer (majority answer: 0.5520)"
    for score in (0.552, 0.4):
        assert best_line("val/accuracy", score, 0.552, "a.ckpt") == f"Best val/accuracy: {score:.4f}{told}"
    sampled = "val/likelihood_accuracy, sample (6 of 9, seed 0)"
    assert best_line(sampled, 0.5, 0.552, "a.ckpt").endswith(told)
    for monitor, majority in (("val/loss", 0.552), ("val/accuracy", None)):
        assert best_line(monitor, 0.5, majority, "a.ckpt") == f"Best {monitor}: 0.5000  (a.ckpt)"


def test_the_test_of_a_cross_validation_has_its_configurations_and_its_options_of_data_and_model() -> None:
    words = ["--config=a.yaml", "--trainer.max_epochs=2", "--config", "b.yaml", "--data.batch_size", "2"]
    kept = ["--config=a.yaml", "--config", "b.yaml", "--data.batch_size", "2", "--model.lora.r=4"]
    assert kept_for_test([*words, "--model.lora.r=4", "--checkpoint.monitor=val/loss"]) == kept
