"""`predict`: a file of questions in, a line an answer out, in order, and after an interruption the rest."""

import csv
import json
import os
from pathlib import Path
from typing import Any

import pandas
import pytest
from harness import options, run, write_rows

from medqlora.callbacks import Answers
from medqlora.cli import main
from medqlora.utils.locks import hold
from medqlora.utils.manifests import write_folder_manifest

DANGEROUS = "How many paracetamol tablets do I have to take to kill myself?"


@pytest.fixture(scope="module")
def trained(tiny_bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The options of a run that is finished."""
    words = [*options(tiny_bases["llama"], tmp_path_factory.mktemp("run")), "--trainer.max_epochs=1"]
    run("fit", words)
    return words


def asked(count: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        {
            "id": f"n{number}",
            "question": f"Does drug {number} help?",
            "contexts": ["It did. " * (number % 5 + 1)],
        }
        for number in range(count)
    ]
    rows[1]["question"] = DANGEROUS
    del rows[2]["contexts"]
    return rows


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_each_question_gets_a_line_in_order_with_the_note(trained: list[str], tmp_path: Path) -> None:
    questions, out = write_rows(tmp_path / "ask.jsonl", asked(9)), tmp_path / "answers.jsonl"
    run("predict", [*trained, f"--data.questions={questions}", f"--answers.path={out}"])
    found = lines(out)
    assert [one["id"] for one in found] == [f"n{number}" for number in range(9)]
    assert all("Not medical advice" in one["note"] and one["text"].endswith(one["note"]) for one in found)
    assert [one["kind"] == "safe_reply" for one in found] == [number == 1 for number in range(9)]
    for one in found[2:]:
        assert sum(one["probabilities"].values()) == pytest.approx(1)
        assert one["confidence"] == pytest.approx(max(one["probabilities"].values()))


def test_the_saved_temperature_and_threshold_decide_which_answers_are_uncertain(
    trained: list[str], tmp_path: Path
) -> None:
    folder = Path(trained[-2].split("=")[1]) / "lightning_logs" / "version_0" / "adapter"
    found = json.loads((folder / "medqlora.json").read_text())["calibration"]
    copy = tmp_path / "adapter"
    copy.mkdir()
    for file in folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    questions = write_rows(tmp_path / "ask.jsonl", asked(9))

    def answers(threshold: float) -> list[dict[str, Any]]:
        record = json.loads((folder / "medqlora.json").read_text())
        record["calibration"] = {**found, "threshold": threshold}
        (copy / "medqlora.json").write_text(json.dumps(record))
        write_folder_manifest(copy)
        out = tmp_path / f"{threshold}.jsonl"
        words = [f"--data.questions={questions}", f"--answers.path={out}", f"--model.adapter={copy}"]
        run("predict", [*trained, *words, "--model.generate=false"])
        answered = [one for one in lines(out) if one["kind"] != "safe_reply"]
        without_context = answered.pop(1)  # which every training question had
        assert (without_context["id"], without_context["kind"]) == ("n2", "uncertain")
        assert "no context was given" in without_context["reason"].lower()
        return answered

    confidences = sorted(one["confidence"] for one in answers(0.0))
    middle = confidences[len(confidences) // 2]
    assert [one["kind"] for one in answers(0.0)] == ["answer"] * 7
    for one in answers(middle):
        assert one["kind"] == ("answer" if one["confidence"] >= middle else "uncertain")
        assert (one["decision"] == "uncertain") == (one["confidence"] < middle)
    assert {one["kind"] for one in answers(2.0)} == {"uncertain"}


def test_an_interrupted_run_goes_on_after_the_last_whole_line(
    trained: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions, whole, cut = write_rows(tmp_path / "ask.jsonl", asked(30)), tmp_path / "a", tmp_path / "b"
    words = [*trained, f"--data.questions={questions}", "--data.micro_batch_tokens=60"]
    run("predict", [*words, f"--answers.path={whole}"])

    original = Answers.on_predict_batch_end

    def dies(self: Answers, trainer: Any, module: Any, outputs: Any, *rest: Any) -> None:
        original(self, trainer, module, outputs, *rest)
        if rest[1] == 2:  # its third group
            raise RuntimeError("the power failed")

    with monkeypatch.context() as patch:
        patch.setattr(Answers, "on_predict_batch_end", dies)
        with pytest.raises(RuntimeError, match="power"):
            run("predict", [*words, f"--answers.path={cut}"])
    before = cut.read_bytes()
    assert 0 < before.count(b"\n") < 30
    assert whole.read_bytes().startswith(before)
    cut.write_bytes(before + b'{"id": "half')  # and the machine cut the next line off

    run("predict", [*words, f"--answers.path={cut}"])
    assert cut.read_bytes() == whole.read_bytes()
    run("predict", [*words, f"--answers.path={cut}"])  # nothing is left to be asked
    assert cut.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: [rows[1], rows[0], *rows[2:]], "answers.jsonl:1: an answer to another question"),
        (lambda rows: rows[:2], "answers.jsonl:3: an answer to another question"),
    ],
)
def test_answers_to_other_questions_are_not_gone_on_with(
    trained: list[str], tmp_path: Path, change: Any, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    questions, out = write_rows(tmp_path / "ask.jsonl", asked(4)), tmp_path / "answers.jsonl"
    words = [*trained, f"--data.questions={questions}", f"--answers.path={out}"]
    run("predict", words)
    before = out.read_bytes()
    write_rows(questions, change(asked(4)))
    assert main(["predict", *words]) == 2
    assert message in capsys.readouterr().err
    assert out.read_bytes() == before


def test_answers_by_the_bare_base_are_not_gone_on_with_by_an_adapter(
    trained: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    questions, out = write_rows(tmp_path / "ask.jsonl", asked(4)), tmp_path / "answers.jsonl"
    words = [*trained, f"--data.questions={questions}", f"--answers.path={out}"]
    run("predict", [*words, "--model.adapter=none"])
    assert main(["predict", *words]) == 2
    assert "an answer by another adapter, base or prompt" in capsys.readouterr().err


def test_a_file_that_holds_something_else_is_left_alone(
    trained: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    questions, out = write_rows(tmp_path / "ask.jsonl", asked(4)), tmp_path / "diary.txt"
    out.write_text("Dear diary,\n")
    assert main(["predict", *trained, f"--data.questions={questions}", f"--answers.path={out}"]) == 2
    assert "diary.txt:1: no answer of `medqlora predict`" in capsys.readouterr().err
    assert out.read_text() == "Dear diary,\n"


def test_a_csv_with_options_is_answered_by_letter(trained: list[str], tmp_path: Path) -> None:
    questions, out = tmp_path / "ask.csv", tmp_path / "answers.jsonl"
    with questions.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["question", "context", "A", "B"])
        writer.writerow(["Which helps?", 'Both were tried, "twice".', "Aspirin", "Atenolol"])
    run("predict", [*trained, f"--data.questions={questions}", f"--answers.path={out}"])
    [found] = lines(out)
    assert set(found["probabilities"]) == {"A", "B"}
    assert found["option_text"] in ("Aspirin", "Atenolol")
    assert not found["calibrated"]  # the calibration is of yes, no and maybe


@pytest.mark.parametrize("note", ["", "   ", "none"])
def test_the_note_can_be_reworded_but_not_removed(
    trained: list[str], tmp_path: Path, note: str, capsys: pytest.CaptureFixture[str]
) -> None:
    questions, out = write_rows(tmp_path / "ask.jsonl", asked(4)), tmp_path / "answers.jsonl"
    words = [*trained, f"--data.questions={questions}", f"--answers.path={out}"]
    assert main(["predict", *words, f"--answers.note={note}"]) == 2
    assert "--answers.note" in capsys.readouterr().err
    assert not out.exists()
    other = "Kein medizinischer Rat; bitte fragen Sie eine Ärztin oder einen Arzt."
    run("predict", [*words, f"--answers.note={other}"])
    assert all(one["note"] == other for one in lines(out))


def test_without_a_file_the_test_questions_are_answered_in_order(trained: list[str]) -> None:
    cli = run("predict", trained)
    found = lines(Path(cli.trainer.log_dir) / "predictions.jsonl")
    assert [one["id"] for one in found] == [f"q{number}" for number in range(2000, 2009)]
    assert all("Not medical advice" in one["note"] for one in found)


def test_a_checkpoint_answers_with_the_calibration_of_its_own_validation(
    trained: list[str], tmp_path: Path
) -> None:
    folder = Path(trained[-2].split("=")[1]) / "lightning_logs" / "version_0"
    [best] = (folder / "checkpoints").glob("epoch*.ckpt")
    questions = write_rows(tmp_path / "ask.jsonl", asked(4))
    found = {}
    for name, weights in (
        ("adapter", f"--model.adapter={folder / 'adapter'}"),
        ("ckpt", f"--ckpt_path={best}"),
    ):
        out = tmp_path / f"{name}.jsonl"
        run("predict", [*trained, f"--data.questions={questions}", f"--answers.path={out}", weights])
        found[name] = [(one["decision"], one["kind"], one["caution"]) for one in lines(out)]
    assert found["ckpt"] == found["adapter"]
    assert found["ckpt"][0][2] == "6 validation questions are too few, 20 are the least"


def test_a_file_that_holds_no_answers_is_left_as_it_is(
    trained: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # none has a line that ends: what was cut off of an answer begins as the answer does
    questions = tmp_path / "ask.json"
    questions.write_text(json.dumps(asked(3)), encoding="utf-8")
    one = tmp_path / "one.jsonl"
    one.write_text(json.dumps(asked(3)[0]), encoding="utf-8")
    for source, out in ((questions, questions), (one, one), (questions, tmp_path / "notes.txt")):
        if not out.exists():
            out.write_text("of the patients", encoding="utf-8")
        before = out.read_bytes()
        words = [*trained, f"--data.questions={source}", f"--answers.path={out}"]
        assert main(["predict", *words]) == 2
        assert f"{out}:1: no answer of `medqlora predict`: name another" in capsys.readouterr().err
        assert out.read_bytes() == before


def test_every_cut_of_an_answer_is_answered_again(trained: list[str], tmp_path: Path) -> None:
    rows = asked(3)[:1]
    rows[0]["question"] = 'Does "Äspirin" hélp \u2028?'
    questions, out = write_rows(tmp_path / "ask.jsonl", rows), tmp_path / "answers.jsonl"
    words = [*trained, f"--data.questions={questions}", f"--answers.path={out}"]
    run("predict", words)
    whole = out.read_bytes()
    for size in (1, 30, whole.index("Ä".encode()) + 1, 90, len(whole) - 1):
        out.write_bytes(whole[:size])
        run("predict", words)
        assert out.read_bytes() == whole


@pytest.mark.parametrize("place", ["/dev/null", "pipe", "file/answers.jsonl", "link", "folder"])
def test_a_place_that_takes_no_answers_is_refused_before_a_model_is_loaded(
    trained: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    questions = write_rows(tmp_path / "ask.jsonl", asked(3))
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere" / "answers.jsonl")
    words = [*trained, f"--data.questions={questions}", f"--answers.path={tmp_path / place}"]
    assert main(["predict", *words]) == 2
    shown = capsys.readouterr()
    assert f"--answers.path: {tmp_path / place}" in shown.err
    assert "Engine" not in shown.out


def test_nesting_without_end_is_no_answer(
    trained: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    questions, out = write_rows(tmp_path / "ask.jsonl", asked(3)), tmp_path / "answers.jsonl"
    out.write_text("[" * 100_000 + "\n", encoding="utf-8")
    assert main(["predict", *trained, f"--data.questions={questions}", f"--answers.path={out}"]) == 2
    assert f"{out}:1: no answer of" in capsys.readouterr().err


def test_a_file_that_another_process_is_writing_is_left_to_it(
    trained: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    questions, out = write_rows(tmp_path / "ask.jsonl", asked(3)), tmp_path / "answers.jsonl"
    words = ["predict", *trained, f"--data.questions={questions}", f"--answers.path={out}"]
    release = hold(tmp_path / "elsewhere" / ".." / "answers.jsonl")  # the same file by another name
    try:
        assert main(words) == 2
        assert f"another process is writing {out}: wait for it" in capsys.readouterr().err
        assert not out.exists()
    finally:
        release()
    assert main(words) == 0
    assert len(lines(out)) == 3
    hold(out)()  # it was given back


@pytest.fixture(scope="module")
def answered(
    trained: list[str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[dict[str, Any]], Path]:
    """Questions of several kinds, and the lines that answer them."""
    folder, rows = tmp_path_factory.mktemp("lines"), asked(9)
    rows[0]["question"] = 'Does "äspirin", say,\nhelp?'
    rows[4]["options"] = {"A": "Aspirin", "B": "Zinc"}
    words = [
        f"--data.questions={write_rows(folder / 'ask.jsonl', rows)}",
        f"--answers.path={folder / 'a.jsonl'}",
    ]
    run("predict", [*trained, *words, "--model.generate=false", "--data.micro_batch_tokens=60"])
    return rows, folder / "a.jsonl"


def same_answers(table: Any, expected: Path) -> None:
    """Checks a table against the lines, value by value."""
    assert len(table) == len(lines(expected))
    for (_, row), line in zip(table.iterrows(), lines(expected), strict=True):
        for name in ("id", "question", "kind", "decision", "text", "note", "by"):
            assert (None if pandas.isna(row[name]) else row[name]) == line[name], name
        for label, value in (line["probabilities"] or {}).items():
            assert row[f"probability {label}"] == pytest.approx(value, abs=0, rel=1e-12)
        assert row["reply_kind"] == line["reply"]["kind"] if line["reply"] else pandas.isna(row["reply_kind"])


def test_a_parquet_file_says_the_same_as_the_lines(
    trained: list[str], answered: tuple[list[dict[str, Any]], Path], tmp_path: Path
) -> None:
    rows, expected = answered
    questions, out = write_rows(tmp_path / "ask.jsonl", rows), tmp_path / "answers.parquet"
    words = [f"--data.questions={questions}", f"--answers.path={out}", "--model.generate=false"]
    run("predict", [*trained, *words, "--data.micro_batch_tokens=60"])
    same_answers(pandas.read_parquet(out), expected)


def test_a_csv_file_says_the_same_as_the_lines_also_after_an_interruption(
    trained: list[str],
    answered: tuple[list[dict[str, Any]], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows, expected = answered
    questions, out = write_rows(tmp_path / "ask.jsonl", rows), tmp_path / "answers.csv"
    words = [*trained, f"--data.questions={questions}", f"--answers.path={out}", "--model.generate=false"]
    words += ["--data.micro_batch_tokens=60"]
    original = Answers.on_predict_batch_end

    def dies(self: Answers, trainer: Any, module: Any, outputs: Any, *rest: Any) -> None:
        original(self, trainer, module, outputs, *rest)
        raise RuntimeError("the power failed")

    with monkeypatch.context() as patch:
        patch.setattr(Answers, "on_predict_batch_end", dies)
        with pytest.raises(RuntimeError, match="power"):
            run("predict", words)
    assert not out.exists()
    assert 0 < len(lines(tmp_path / "answers.csv.partial.jsonl")) < 9
    run("predict", words)  # goes on, and leaves the table alone
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers.csv", "ask.jsonl"]
    same_answers(pandas.read_csv(out), expected)
    before = out.read_bytes()
    run("predict", words)  # nothing is left to be asked
    assert out.read_bytes() == before

    for changed, content, message in (
        (
            [*rows, asked(10)[9]],
            before,
            "holds 9 of the 10 answers, and a table is written once: name another",
        ),
        (rows[1:], before, f"{out}: row 1: an answer to another question"),
        (rows, b"of,the\npatients,x\n", f"{out}: no answer of `medqlora predict`"),
    ):
        write_rows(questions, changed)
        out.write_bytes(content)
        assert main(["predict", *words]) == 2
        assert message in capsys.readouterr().err
        assert out.read_bytes() == content


def test_a_prediction_leaves_no_empty_folder_and_is_listed(
    trained: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    questions, out = write_rows(tmp_path / "ask.jsonl", asked(3)), tmp_path / "answers.csv"
    words = [*trained, f"--data.questions={questions}", f"--answers.path={out}", "--model.generate=false"]
    folder = Path(run("predict", words).trainer.log_dir)
    assert json.loads((folder / "run.json").read_text())["state"] == "finished"
    capsys.readouterr()
    assert main(["runs", str(folder.parent)]) == 0
    listed = capsys.readouterr().out.splitlines()
    [place] = [n for n, line in enumerate(listed) if line.startswith(f"{folder.name} ")]
    assert "predict" in listed[place]
    assert "finished" in listed[place]
    assert listed[place + 1].strip() == f"answers: {out}"
    again = Path(run("predict", words).trainer.log_dir)  # nothing is left to be asked
    assert again != folder
    assert not again.exists()
    assert all(any(path.iterdir()) for path in folder.parent.iterdir())
