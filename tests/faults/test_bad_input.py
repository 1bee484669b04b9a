"""Whatever is wrong with the input: one line that says where, what and how to mend it, exit code 2, nothing lost."""

import json
import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import options, questions, run, write_rows

from medqlora import cli
from medqlora.data import official_test_ids

Refused = Callable[..., str]
without_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here: nothing to refuse")


@pytest.fixture(scope="module")
def finished(tiny_bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data and the one finished run of a small training on the Llama base."""
    folder = tmp_path_factory.mktemp("finished")
    run("fit", [*options(tiny_bases["llama"], folder), "--trainer.max_steps=2"])
    return folder


@pytest.fixture
def words(finished: Path, tiny_bases: dict[str, Path]) -> list[str]:
    """The options that the finished run was made with; they are right."""
    return options(tiny_bases["llama"], finished)


@pytest.fixture
def refused(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Refused:
    """Runs a command that has to fail; its one line."""
    # Lightning's handlers write to the stderr of the moment of its import: another test's, closed by now
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        monkeypatch.setattr(logging.getLogger(name), "handlers", [])
    monkeypatch.chdir(tmp_path)

    def refuse(*given: str) -> str:
        before = contents(finished, tmp_path)
        capsys.readouterr()
        assert cli.main(list(given)) == 2
        shown = capsys.readouterr().err
        assert contents(finished, tmp_path) == before, "something was written or lost"
        lines = [
            line for line in re.split(r"[\r\n]+", shown) if line and "%|" not in line
        ]  # but progress bars
        assert len(lines) == 1
        assert lines[0].startswith("medqlora: error: ")
        return lines[0].removeprefix("medqlora: error: ")

    return refuse


def contents(*folders: Path) -> dict[Path, bytes | None]:
    """Every file's bytes and every folder, so that an empty `version_1` counts too."""
    return {
        path: path.read_bytes() if path.is_file() else None
        for folder in folders
        for path in folder.rglob("*")
    }


def changed(number: int, **changes: Any) -> list[dict[str, Any]]:
    """Twelve good rows, but for the one at `number`; a change to None takes the field away."""
    rows = questions(12)
    rows[number] = {name: value for name, value in {**rows[number], **changes}.items() if value is not None}
    return rows


def test_the_folder_that_a_logger_of_the_users_own_names_is_not_taken_back(
    refused: Refused, words: list[str], finished: Path
) -> None:
    held = finished / "lightning_logs" / "version_7"
    held.mkdir()
    (held / "test_report.json").write_text("{}", encoding="utf-8")
    logger = ["--trainer.logger=lightning.pytorch.loggers.TensorBoardLogger"]
    logger += [
        f"--trainer.logger.{name}" for name in (f"save_dir={finished}", "name=lightning_logs", "version=7")
    ]
    # `refused` compares what there is before and after
    assert "there is no file" in refused("fit", *words, *logger, "--data.source.train=/nowhere.jsonl")


# ---- options ---------------------------------------------------------------------------------------


def test_a_configuration_with_an_unknown_key(refused: Refused, words: list[str], tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("data:\n  batch_size: 4\n  epochs: 3\n")
    line = refused("fit", *words, f"--config={mine}")
    assert line.startswith(f"{mine}:3: data.epochs: there is no such option")


def test_a_configuration_that_is_not_there(refused: Refused, tmp_path: Path) -> None:
    line = refused("fit", f"--config={tmp_path / 'mine.yaml'}")
    assert line.startswith(f"--config: there is no file '{tmp_path / 'mine.yaml'}': ")


def test_a_target_module_that_the_model_has_not(refused: Refused, words: list[str]) -> None:
    line = refused("fit", *words, "--model.lora.target_modules=[q_proj,k_prj]")
    assert line.startswith("--model.lora.target_modules: the model has no linear layer 'k_prj'")
    assert "did you mean 'k_proj'?" in line


@without_cuda
@pytest.mark.parametrize(
    ("option", "value", "fix"),
    [
        ("--trainer.accelerator", "gpu", "use --trainer.accelerator auto, or cpu"),
        ("--trainer.precision", "16-mixed", "use 32 or bf16-mixed on a CPU"),
        ("--model.backend.attention", "flash_attention_2", "use sdpa"),
    ],
)
def test_an_option_that_needs_cuda_where_there_is_none(
    refused: Refused, words: list[str], option: str, value: str, fix: str
) -> None:
    line = refused("fit", *words, f"{option}={value}")
    assert line.startswith(f"{option} {value}")
    assert fix in line


@without_cuda
def test_unsloth_where_it_cannot_run(refused: Refused, words: list[str]) -> None:
    line = refused("fit", *words, "--model.backend=medqlora.models.Unsloth")
    assert line.startswith("--model.backend medqlora.models.Unsloth")
    assert "configs/no_unsloth.yaml" in line


# ---- data ------------------------------------------------------------------------------------------


def test_a_data_file_that_is_not_there(refused: Refused, words: list[str], tmp_path: Path) -> None:
    missing = tmp_path / "none.jsonl"
    line = refused("fit", *words, f"--data.source.train={missing}")
    assert line == f"--data.source.train: there is no file {missing}: check the path"


@pytest.mark.parametrize(
    ("number", "changes", "said", "fix"),
    [
        (6, {"question": None}, "question is missing or empty", "every row needs one"),
        (6, {"question": "  "}, "question is missing or empty", "every row needs one"),
        (6, {"question": "\u200b \ufeff\u2060"}, "question is missing or empty", "every row needs one"),
        (4, {"answer": "perhaps"}, "answer is 'perhaps', which is none of yes, no, maybe", "correct it"),
        (4, {"answer": None}, "answer is missing or empty", "needs answers"),
        (7, {"id": official_test_ids()[0]}, f"holds the PMID {official_test_ids()[0]}", "remove it"),
        (7, {"pmid": int(official_test_ids()[1])}, f"holds the PMID {official_test_ids()[1]}", "remove it"),
    ],
    ids=[
        "no question",
        "an empty question",
        "a question that can't be seen",
        "a label outside its set",
        "no answer",
        "a test question by its id",
        "a test question by another column",
    ],
)
def test_a_row_that_cannot_be_used(
    refused: Refused,
    words: list[str],
    tmp_path: Path,
    number: int,
    changes: dict[str, Any],
    said: str,
    fix: str,
) -> None:
    file = write_rows(tmp_path / "mine.jsonl", changed(number, **changes))
    line = refused("fit", *words, f"--data.source.train={file}")
    assert line.startswith(f"{file}:{number + 1}: ")
    assert said in line
    assert fix in line
    # a test question is no slip in a row: it has to leave the file
    assert line.endswith(", or leave such rows out: --data.source.on_bad_record skip") == ("PMID" not in said)


def test_an_example_that_is_longer_than_the_base_was_made_for(
    refused: Refused, words: list[str], tmp_path: Path, tiny_bases: dict[str, Path]
) -> None:
    base = tmp_path / "short"
    shutil.copytree(tiny_bases["llama"], base)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 60}))
    rows = changed(7, long_answer="The trial said so. " * 40)
    file = write_rows(tmp_path / "mine.jsonl", rows)
    given = [f"--model.backend.base={base}", f"--data.source.train={file}"]
    line = refused("fit", *words, *given)
    assert re.match(
        r"q7: has \d{3} tokens with its answer, and the base's max_position_embeddings is 60: ", line
    )
    assert "lower --data.max_prompt_tokens (now 256), or shorten the answer" in line


def test_a_training_set_that_holds_the_test_files_questions(
    refused: Refused, words: list[str], tmp_path: Path, finished: Path
) -> None:
    rows = [json.loads(line) for line in (finished / "test.jsonl").read_text().splitlines()]
    file = write_rows(tmp_path / "mine.jsonl", [*questions(12), {**rows[0], "id": "under another id"}])
    line = refused("fit", *words, f"--data.source.train={file}")
    assert line.startswith(f"{file}:13: the train set holds the same question and context as ")


def test_an_empty_file(refused: Refused, words: list[str], tmp_path: Path) -> None:
    file = write_rows(tmp_path / "mine.jsonl", [])
    line = refused("fit", *words, f"--data.source.train={file}")
    assert line == f"--data.source.train: {file} holds no rows: give a file with data"


def test_an_empty_split(refused: Refused, words: list[str]) -> None:
    without = [word for word in words if not word.startswith("--data.source.test")]
    line = refused("test", *without, "--model.adapter=none")
    assert line.startswith("--data.source: JSONLines has no test records: ")
    assert "--data.source.test FILE" in line


def test_more_training_samples_than_there_are(refused: Refused, words: list[str]) -> None:
    line = refused("fit", *words, "--data.train_samples=200")
    assert line.startswith("--data.train_samples is 200, but the training set holds 24: ")


def test_no_room_for_the_question(refused: Refused, words: list[str], finished: Path) -> None:
    line = refused("fit", *words, "--data.max_prompt_tokens=3")
    assert re.match(
        rf"{re.escape(str(finished / 'train.jsonl'))}:\d+ \(id q\d+\): the question takes \d+ tokens", line
    )
    assert "--data.max_prompt_tokens is 3: raise it" in line


# ---- models ----------------------------------------------------------------------------------------


def test_the_hub_out_of_reach_for_the_model(refused: Refused, words: list[str]) -> None:
    line = refused("fit", *words, "--model.backend.base=someone/a-model-that-is-not-here")
    assert line.startswith(
        "--model.backend.base: 'someone/a-model-that-is-not-here' can't be had from the Hub ("
    )
    assert "pass the folder" in line


def test_the_hub_out_of_reach_for_the_data(refused: Refused, words: list[str], tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("data:\n  source:\n    class_path: medqlora.data.PubMedQA\n")
    line = refused("fit", *[w for w in words if not w.startswith("--data.source")], f"--config={mine}")
    assert line.startswith("--data.source.path: qiaojin/PubMedQA (pqa_labeled, revision main) can't be read")
    assert "pass --data.source.path ori_pqal.json" in line


def test_a_model_folder_that_is_none(refused: Refused, words: list[str], tmp_path: Path) -> None:
    line = refused("fit", *words, f"--model.backend.base={tmp_path}")
    assert line.startswith(f"--model.backend.base: '{tmp_path}' holds no config.json")


def test_a_quantization_that_the_base_cannot_take(
    refused: Refused, words: list[str], tmp_path: Path, tiny_bases: dict[str, Path]
) -> None:
    base = Path(shutil.copytree(tiny_bases["llama"], tmp_path / "base"))
    config = json.loads((base / "config.json").read_text())
    config["quantization_config"] = {
        "quant_method": "bitsandbytes",
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
    }
    (base / "config.json").write_text(json.dumps(config))
    given = (f"--model.backend.base={base}", "--model.backend.quantization=int8")
    line = refused("fit", *words, *given)
    assert line.startswith("--model.backend.quantization int8: the files of ")
    assert "quantized already, as nf4: pass --model.backend.quantization nf4" in line


# ---- checkpoints and adapters ----------------------------------------------------------------------


def checkpoint_of(folder: Path) -> Path:
    return folder / "lightning_logs" / "version_0" / "checkpoints" / "last.ckpt"


@pytest.mark.parametrize("verb", ["fit", "test"])
def test_a_checkpoint_of_another_base(
    refused: Refused, words: list[str], finished: Path, tiny_bases: dict[str, Path], verb: str
) -> None:
    other = f"--model.backend.base={tiny_bases['mistral']}"
    line = refused(verb, *words, other, f"--ckpt_path={checkpoint_of(finished)}")
    assert line.startswith(f"--ckpt_path: this checkpoint was trained on the base '{tiny_bases['llama']}'")
    assert "pass that base as --model.backend.base" in line


@pytest.mark.parametrize("verb", ["fit", "test"])
@pytest.mark.parametrize("damage", ["truncated", "text", "empty"])
def test_a_checkpoint_that_is_not_whole(
    refused: Refused, words: list[str], finished: Path, tmp_path: Path, verb: str, damage: str
) -> None:
    shutil.copytree(finished / "lightning_logs", tmp_path / "lightning_logs")
    file = checkpoint_of(tmp_path)
    whole = file.read_bytes()
    file.write_bytes(
        {"truncated": whole[: len(whole) // 2], "text": b"no checkpoint\n", "empty": b""}[damage]
    )
    line = refused(verb, *words, f"--ckpt_path={file}")
    assert line.startswith(f"--ckpt_path: '{file}' is not a whole checkpoint")


def test_a_checkpoint_that_is_not_there(refused: Refused, words: list[str], tmp_path: Path) -> None:
    missing = tmp_path / "none.ckpt"
    line = refused("fit", *words, f"--ckpt_path={missing}")
    assert line.startswith(f"--ckpt_path: there is no file '{missing}': give ")


def test_a_checkpoint_of_adapters_of_another_shape(
    refused: Refused, words: list[str], finished: Path
) -> None:
    line = refused("fit", *words, "--model.lora.r=8", f"--ckpt_path={checkpoint_of(finished)}")
    assert line.startswith("--model.lora.r is 8, but the checkpoint was trained with 4")


def test_an_adapter_folder_that_is_none(refused: Refused, words: list[str], tmp_path: Path) -> None:
    line = refused("test", *words, f"--model.adapter={tmp_path}")
    assert line.startswith(
        f"--model.adapter: '{tmp_path}' holds no adapter_config.json: give the adapter/ folder"
    )


def test_an_adapter_of_another_base(
    refused: Refused, words: list[str], finished: Path, tiny_bases: dict[str, Path]
) -> None:
    adapter = finished / "lightning_logs" / "version_0" / "adapter"
    line = refused(
        "test", *words, f"--model.backend.base={tiny_bases['mistral']}", f"--model.adapter={adapter}"
    )
    assert line.startswith(f"--model.adapter: '{adapter}' was trained on the base '{tiny_bases['llama']}'")


def test_no_finished_run_on_this_base(
    refused: Refused, words: list[str], tiny_bases: dict[str, Path]
) -> None:
    line = refused("test", *words, f"--model.backend.base={tiny_bases['mistral']}")
    assert line.startswith("--model.adapter: ")
    assert (
        f"holds no finished run on the base '{tiny_bases['mistral']}': train one with `medqlora fit`" in line
    )


def test_a_test_of_what_the_adapter_was_trained_on(
    refused: Refused, words: list[str], finished: Path
) -> None:
    mine = [word for word in words if not word.startswith(("--data.source.train", "--data.source.test"))]
    swapped = (
        f"--data.source.train={finished / 'test.jsonl'}",
        f"--data.source.test={finished / 'train.jsonl'}",
    )
    line = refused("test", *mine, *swapped)
    assert line.startswith(
        "--model.adapter: 24 of the 24 test questions of JSONLines were in its training set"
    )
    assert "--report.allow_overlap true" in line
