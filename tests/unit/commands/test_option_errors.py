"""What is wrong with an option is one line that names option, value and fix, and nothing is written."""

import logging
from pathlib import Path

import pytest

from medqlora import cli
from medqlora.commands.option_errors import one_line

CONFIG = """\
model:
  backend:
    class_path: medqlora.models.Transformers
    init_args:
      base: {base}
data:
  source: medqlora.data.SyntheticTrials
trainer:
  accelerator: cpu
  precision: 32
"""
OPTIMIZERS = "adamw_8bit, paged_adamw_8bit, adamw, or a class_path"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_bases: dict[str, Path]) -> Path:
    """The working folder, with a configuration that is right but for what a test adds."""
    monkeypatch.chdir(tmp_path)
    # Lightning's handlers write to the stderr of the moment of its import: another test's, closed by now
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        monkeypatch.setattr(logging.getLogger(name), "handlers", [])
    (tmp_path / "run.yaml").write_text(CONFIG.format(base=tiny_bases["llama"]))
    return tmp_path


def refused(folder: Path, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line that a run with `words` ends with."""
    before = sorted(folder.rglob("*"))
    capsys.readouterr()
    assert cli.main(list(words)) == 2
    shown = capsys.readouterr().err
    assert sorted(folder.rglob("*")) == before, "something was written"
    assert shown.startswith("medqlora: error: ")
    assert shown.count("\n") == 1
    assert "Traceback" not in shown
    return shown.removeprefix("medqlora: error: ").rstrip("\n")


COMMAND_LINE = [
    # mistyped options
    ("--model.lora.rank 8", "--model.lora.rank: there is no such option: did you mean 'model.lora.r'?"),
    (
        "--model.learing_rate=1",
        "--model.learing_rate: there is no such option: did you mean 'model.learning_rate'?",
    ),
    # no abbreviation is guessed at
    (
        "--trainer.max_epoch 1",
        "--trainer.max_epoch: there is no such option: did you mean 'trainer.max_epochs'?",
    ),
    ("--batch_size 8", "--batch_size: there is no such option: did you mean 'data.batch_size'?"),
    ("extra", "'extra' belongs to no option: write --OPTION extra, or leave it out"),
    ("--data.batch_size", "--data.batch_size: its value is missing: write --data.batch_size VALUE"),
    # wrong types
    ("--data.batch_size many", "--data.batch_size many: it has to be a whole number"),
    ("--data.batch_size 2.5", "--data.batch_size 2.5: it has to be a whole number"),
    ("--model.learning_rate fast", "--model.learning_rate fast: it has to be a number"),
    ("--model.lora.alpha []", "--model.lora.alpha []: it has to be a number"),
    ("--model.generate perhaps", "--model.generate perhaps: it has to be true or false"),
    ("--seed_everything x", "--seed_everything x: it has to be true or false or a whole number"),
    (
        "--data.micro_batch_tokens x",
        "--data.micro_batch_tokens x: it has to be a whole number, or auto",
    ),
    ("--checkpoint.mode up", "--checkpoint.mode up: choose one of max, min"),
    # names that other trainers have for an option
    ("--lr 3", "--lr: there is no such option: did you mean 'model.learning_rate'?"),
    (
        "--num-train-epochs 3",
        "--num-train-epochs: there is no such option: did you mean 'trainer.max_epochs'?",
    ),
    # choices
    ("--data.packing tight", "--data.packing tight: choose one of auto, packed, padded"),
    ("--model.optimizer adam8", f"--model.optimizer adam8: choose one of {OPTIMIZERS}"),
    (
        "--model.backend.quantization nf5",
        "--model.backend.quantization nf5: choose one of nf4, fp4, int8, none, gptq, awq",
    ),
    # classes
    (
        "--model.backend medqlora.models.Transfomers",
        "--model.backend medqlora.models.Transfomers: there is no such class: did you mean 'Transformers'?",
    ),
    (
        "--data.source medqlora.data.PubMedQ",
        "--data.source medqlora.data.PubMedQ: there is no such class: did you mean 'PubMedQA'?",
    ),
    (
        "--data.source PubMedX",
        "--data.source PubMedX: there is no such class: did you mean 'medqlora.data.PubMedQA'?",
    ),
    (
        "--model.backend nowhere.Thing",
        "--model.backend nowhere.Thing: there is no such class: choose one of medqlora.models.Transformers, "
        "medqlora.models.Unsloth, medqlora.models.TinyLlama, medqlora.models.VisionLanguage, "
        "medqlora.models.TinyVision, medqlora.models.UnslothVision",
    ),
    (
        "--trainer.callbacks+=lightning.pytorch.callbacks.EarlyStoppin",
        "--trainer.callbacks lightning.pytorch.callbacks.EarlyStoppin: there is no such class: "
        "did you mean 'EarlyStopping'?",
    ),
    # options of Lightning's classes
    (
        "--trainer.callbacks+=Timer --trainer.callbacks.durations=00:01:00:00",
        "--trainer.callbacks.durations: lightning.pytorch.callbacks.Timer has no option 'durations': "
        "did you mean 'duration'?",
    ),
    (
        "--trainer.logger+=MLFlowLogger --trainer.logger.experimentname=x",
        "--trainer.logger.experimentname: lightning.pytorch.loggers.MLFlowLogger has no option 'experimentname': "
        "did you mean 'experiment_name'?",
    ),
    (
        "--trainer.callbacks+=EarlyStopping --trainer.callbacks.monitor=val/loss --trainer.callbacks.patience=soon",
        "--trainer.callbacks.patience soon: it has to be a whole number",
    ),
    (
        "--trainer.logger.save_dir=x",
        "--trainer.logger.save_dir: it is an option of a class, and --trainer.logger names none: write "
        "--trainer.logger CLASS before it",
    ),
    (
        "--model.lr_scheduler=torch.optim.SGD",
        "--model.lr_scheduler torch.optim.SGD: choose one of cosine, linear, constant, or a class_path",
    ),
    # options that are not of this backend
    (
        "--model.backend.quantisation nf4",
        "--model.backend.quantisation: medqlora.models.Transformers has no option 'quantisation': "
        "did you mean 'quantization'?",
    ),
    # checks of our own come out the same way
    ("--data.batch_size 0", "--data.batch_size is 0: it has to be at least 1"),
    (
        "--data.eval_memory_gib 0",
        "--data.eval_memory_gib is 0.0: it has to be above 0, in GiB (10 for a 12 GB GPU)",
    ),
    ("--model.lora.r 0", "--model.lora.r is 0: the rank has to be at least 1 (8 to 64 are usual)"),
]


@pytest.mark.parametrize(("words", "line"), COMMAND_LINE, ids=[words for words, _ in COMMAND_LINE])
def test_a_wrong_word_on_the_command_line(
    folder: Path, capsys: pytest.CaptureFixture[str], words: str, line: str
) -> None:
    assert refused(folder, capsys, "fit", "--config", "run.yaml", *words.split()) == line


IN_A_FILE = [
    (
        "model:\n  lora:\n    rank: 8\n",
        ":3: model.lora.rank: there is no such option: did you mean 'model.lora.r'?",
    ),
    (
        "# a note\ndata:\n\n  batch_sise: 8\n",
        ":4: data.batch_sise: there is no such option: did you mean 'data.batch_size'?",
    ),
    ("data:\n  batch_size: many\n", ":2: data.batch_size many: it has to be a whole number"),
    ("data:\n  packing: tight\n", ":2: data.packing tight: choose one of auto, packed, padded"),
    (
        "model:\n  backend:\n    class_path: medqlora.models.Tiny\n",
        ":2: model.backend medqlora.models.Tiny: there is no such class: did you mean 'TinyLlama'?",
    ),
    (
        "model:\n  backend:\n    class_path: medqlora.models.Transformers\n    init_args:\n      base: x\n"
        "      quantisation: nf4\n",
        ":6: model.backend.quantisation: medqlora.models.Transformers has no option 'quantisation': "
        "did you mean 'quantization'?",
    ),
    (
        "model:\n  backend:\n    class_path: medqlora.models.Transformers\n    init_args:\n      base: x\n"
        "      quantization: nf5\n",
        ":6: model.backend.quantization nf5: choose one of nf4, fp4, int8, none, gptq, awq",
    ),
    (
        "data:\n  batch_size: 4\n  batch_size: 8\n",
        ":3: data.batch_size is set a second time (first in line 2): keep one",
    ),
    ("model:\n  lora: [1\ndata: 3\n", ":3: not YAML (expected ',' or ']', but got ':'): correct it"),
    ("model:\n\tlora: 3\n", ":2: not YAML (found character '\\t' that cannot start any token): correct it"),
    ("- model\n- data\n", ": it holds no options: write them as in configs/demo.yaml, `name: value`"),
    ("", ": it holds no options: write them as in configs/demo.yaml, `name: value`"),
]


@pytest.mark.parametrize(("text", "line"), IN_A_FILE)
def test_a_wrong_line_in_a_configuration_is_named_by_file_and_line(
    folder: Path, capsys: pytest.CaptureFixture[str], text: str, line: str
) -> None:
    (folder / "mine.yaml").write_text(text)
    assert (
        refused(folder, capsys, "fit", "--config", "run.yaml", "--config", "mine.yaml") == f"mine.yaml{line}"
    )


def test_bytes_that_are_no_text_are_no_yaml(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "mine.yaml").write_bytes(b"\xff\xfe\x00model")
    assert refused(folder, capsys, "fit", "--config", "mine.yaml").startswith("mine.yaml: not YAML (")


def test_of_two_configurations_the_one_that_is_wrong_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "first.yaml").write_text("data:\n  batch_size: 4\n")
    (folder / "last.yaml").write_text("data:\n  max_prompt_tokens: 9\n  batch_size: many\n")
    line = refused(folder, capsys, "fit", "--config=first.yaml", "--config=run.yaml", "--config", "last.yaml")
    assert line == "last.yaml:3: data.batch_size many: it has to be a whole number"


def test_the_command_line_is_named_where_it_overrides_a_file(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "mine.yaml").write_text("data:\n  batch_size: 4\n")
    words = ("fit", "--config", "run.yaml", "--config", "mine.yaml", "--data.batch_size", "many")
    assert refused(folder, capsys, *words) == "--data.batch_size many: it has to be a whole number"


def test_what_is_required_and_missing_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "mine.yaml").write_text("data:\n  source: medqlora.data.SyntheticTrials\n")
    line = refused(folder, capsys, "fit", "--config", "mine.yaml")
    assert line == "--model.backend is missing: pass it, or a --config that sets it (configs/demo.yaml does)"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "backend: {class_path: medqlora.models.Transformers}",
            "model.backend medqlora.models.Transformers: its option 'base' is missing: write --model.backend.base "
            "VALUE",
        ),
        ("optimizer: {class_path: os.system}", "model.optimizer os.system: it is no class: name one"),
        (
            "optimizer: {class_path: torch.optim.SGD, init_args: {momentu: 3}}",
            "model.optimizer.momentu: torch.optim.SGD has no option 'momentu': did you mean 'momentum'?",
        ),
    ],
)
def test_what_a_class_of_a_configuration_lacks_or_refuses_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    (folder / "mine.yaml").write_text(f"model:\n  {text}\n")
    words = ("fit", "--config", "mine.yaml", "--data.source", "medqlora.data.SyntheticTrials")
    words += () if "backend" in text else ("--model.backend", "medqlora.models.TinyLlama")
    assert refused(folder, capsys, *words) == f"mine.yaml:2: {message}"


def test_a_value_for_what_has_options_of_its_own_names_them(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(folder, capsys, "fit", "--config", "run.yaml", "--model.lora", "5")
    assert line.startswith("--model.lora 5: it has options of its own: write --model.lora.alpha, ")


@pytest.mark.parametrize("verb", ["fit", "validate", "test", "predict"])
def test_every_verb_says_it_so(folder: Path, capsys: pytest.CaptureFixture[str], verb: str) -> None:
    line = refused(folder, capsys, verb, "--config", "run.yaml", "--model.adapte", "x")
    assert line == "--model.adapte: there is no such option: did you mean 'model.adapter'?"


def test_a_message_of_an_unknown_form_still_becomes_one_line() -> None:
    assert one_line("something\n  quite new", ["model.lora.r"], []) == "something quite new"
    assert (
        one_line('Parser key "data.seed": it is\n odd. Got value: 7', [], []) == "--data.seed 7: it is odd."
    )
