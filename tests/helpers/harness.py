"""Runs the commands in this process, on tiny bases and small files."""

import json
from pathlib import Path
from typing import Any

from medqlora.cli import main
from medqlora.commands.verbs import run_verb


def questions(count: int, start: int = 0) -> list[dict[str, Any]]:
    """Rows whose answer is written in their context; lengths differ."""
    labels = ("yes", "no", "maybe")
    return [
        {
            "id": f"q{number}",
            "question": f"Does drug {number} help?",
            "contexts": [
                f"Trial {number} of it. " * (1 + number % 4),
                f"The result was {labels[number % 3]}.",
            ],
            "answer": labels[number % 3],
            "long_answer": f"The trial said {labels[number % 3]} of drug {number}.",
        }
        for number in range(start, start + count)
    ]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def options(base: Path, folder: Path, *, train: int = 24, dev: int = 6, test: int = 9) -> list[str]:
    """The options of a small run on `base`, its data and its run folder under `folder`."""
    files = {
        name: write_rows(folder / f"{name}.jsonl", questions(count, start))
        for name, count, start in (("train", train, 0), ("dev", dev, 1000), ("test", test, 2000))
        if count
    }
    return [
        "--config=" + str(_config(folder)),
        f"--model.backend.base={base}",
        *(f"--data.source.{name}={path}" for name, path in files.items()),
        f"--trainer.default_root_dir={folder}",
    ]


def _config(folder: Path) -> Path:
    path = folder / "config.yaml"
    path.write_text(
        """
model:
  backend:
    class_path: medqlora.models.Transformers
    init_args: {base: given-by-the-test, gradient_checkpointing: false}
  lora: {r: 4, alpha: 8}
  learning_rate: 5.0e-3
  max_new_tokens: 6
data:
  source:
    class_path: medqlora.data.JSONLines
    init_args: {train: given-by-the-test}
  max_prompt_tokens: 256
  batch_size: 4
  micro_batch_tokens: 400
trainer:
  accelerator: cpu
  precision: 32
  max_epochs: 2
progress: {refresh_rate: 0}
""",
        encoding="utf-8",
    )
    return path


def run(verb: str, words: list[str]) -> Any:
    """The finished command, with its `trainer` and `model`."""
    return run_verb([verb, *words])


def refused(capsys: Any, *words: str, reads: bool = False) -> str:
    """The one line with which a command that exits with 2 says why; only one that `reads` has spoken before."""
    capsys.readouterr()
    assert main(list(words)) == 2
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1, shown
    assert reads or not shown.out, shown
    return shown.err


def adapter_weights(cli: Any) -> dict[str, Any]:
    """The trained weights that the run ended with."""
    from medqlora.models.adapters import trainable_state

    return {name: value.clone() for name, value in trainable_state(cli.model.model).items()}
