"""`medqlora ask`: the answer that the whole machinery would give, in the terminal, and never without its note."""

import io
import json
import runpy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from harness import options, refused, run, write_rows
from tiny import hub_cache

from medqlora.cli import main
from medqlora.commands.ask import stream
from medqlora.data import encode_all
from medqlora.errors import InputError
from medqlora.evaluation.parsing.decisions import parse_decision
from medqlora.inference import Answer, AnswerPart, Predictor, answer_of
from medqlora.inference.loading import Trained, read_trained
from medqlora.inference.streaming import PartsOfAnswer
from medqlora.records import Prediction, Record
from medqlora.safety import NOTE

QUESTION = "Does drug 7 help?"
CONTEXT = "Trial 7 of it. The result was yes."


@pytest.fixture(scope="module")
def logs(tiny_bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs' folder, with a finished run in it."""
    folder = tmp_path_factory.mktemp("run")
    run("fit", [*options(tiny_bases["llama"], folder, dev=24), "--trainer.max_epochs=1"])
    return folder / "lightning_logs"


def ask(capsys: pytest.CaptureFixture[str], logs: Path, *words: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["ask", *words, "--logs", str(logs), "--device", "cpu", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_it_answers_as_predict_does(
    logs: Path, tiny_bases: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"id": "question", "question": QUESTION, "contexts": [CONTEXT]}]
    file, out = write_rows(tmp_path / "ask.jsonl", rows), tmp_path / "answers.jsonl"
    words = [
        *options(tiny_bases["llama"], tmp_path),
        f"--data.questions={file}",
        f"--answers.path={out}",
        f"--model.adapter={logs / 'version_0' / 'adapter'}",
        "--model.max_new_tokens=12",
    ]
    run("predict", words)
    expected = json.loads(out.read_text())
    found = ask(capsys, logs, QUESTION, "--context", CONTEXT, "--max_new_tokens", "12")
    assert found["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-5)
    for key in ("decision", "kind", "rationale", "calibrated_on", "note"):
        assert found[key] == expected[key], key
    assert found["calibrated_on"] == 24


def test_a_context_may_stand_in_a_file(
    logs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "abstract.txt"
    file.write_text(CONTEXT, encoding="utf-8")
    assert ask(capsys, logs, QUESTION, "--context", str(file)) == ask(
        capsys, logs, QUESTION, "--context", CONTEXT
    )
    assert (
        ask(capsys, logs, QUESTION)["probabilities"]
        != ask(capsys, logs, QUESTION, "--context", CONTEXT)["probabilities"]
    )


def test_the_terminal_shows_decision_confidence_and_last_the_note(
    logs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ask", QUESTION, "--context", CONTEXT, "--logs", str(logs), "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0] == f"Adapter: {logs / 'version_0' / 'adapter'}"
    assert "Confidence" in out
    assert " ".join(out.split()).endswith(NOTE)


def test_a_terminal_is_told_the_same_while_it_is_generated(
    logs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["ask", QUESTION, "--context", CONTEXT, "--logs", str(logs), "--device", "cpu"]
    assert main(words) == 0
    at_once = capsys.readouterr().out
    parts: list[AnswerPart] = []
    answer_stream = Predictor.answer_stream

    def noted(*asked: Any) -> Iterator[AnswerPart]:
        for part in answer_stream(*asked):
            parts.append(part)
            yield part

    monkeypatch.setattr(Predictor, "answer_stream", noted)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert main(words) == 0
    assert capsys.readouterr().out == at_once
    assert len(parts) > 2
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == parts[-1].answer.kind


def streamed(text: str, capsys: pytest.CaptureFixture[str], width: int) -> tuple[str, Answer]:
    """The terminal's text for a model that generates `text`, and the answer."""
    record = Record("1", QUESTION)
    made = Prediction("1", None, record.labels, (-0.1, -3.0, -4.0))
    parts: list[AnswerPart] = []

    def report(part: AnswerPart | None) -> None:
        parts.extend([] if part is None else [part])

    maker = PartsOfAnswer(record, lambda prediction: answer_of(prediction, record), report)
    for end in range(0, len(text), 3):
        maker.so_far(replace(made, text=text[:end]))
    maker.complete(answer_of(replace(made, text=text, parsed=parse_decision(text, record.labels)), record))
    answer = stream(parts, width)
    return capsys.readouterr().out, answer


@pytest.mark.parametrize("width", [20, 44, 100])
@pytest.mark.parametrize(
    "text",
    [
        "yes. The rates fell in both arms of this trial.\n\n- by a third in adults\n- by half in children\n",
        "No. The rates were the same in both arms of this trial.",
        "yes. " + "两组的发生率均下降" * 20,
        "yes. \x1b[2J" + "pneumonoultramicroscopicsilicovolcanoconiosis " * 3,
        "",
    ],
)
def test_what_stands_there_in_the_end_is_the_answer(
    text: str, width: int, capsys: pytest.CaptureFixture[str]
) -> None:
    out, answer = streamed(text, capsys, width)
    assert out == f"{answer.shown(width)}\n"


def test_a_text_that_takes_its_decision_back_is_followed_by_the_whole_answer(
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, answer = streamed("yes. The rates fell in one arm. Wait, the final answer is no.", capsys, 80)
    assert out.startswith("Answer: yes")
    assert out.endswith(f"The complete text changes this answer:\n\n{answer.shown(80)}\n")
    assert answer.kind == "uncertain"


def test_without_a_context_it_says_that_the_adapter_learned_with_one(
    logs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ask", QUESTION, "--logs", str(logs), "--device", "cpu"]) == 0
    assert "trained with a context, and none was given" in capsys.readouterr().out


def test_of_several_options_one_is_chosen(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = ask(capsys, logs, "Which helps?", "--option", "Aspirin", "--option", "Atenolol")
    assert set(found["probabilities"]) == {"A", "B"}


def test_help_in_distress_needs_no_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ask", "I want to kill myself", "--logs", str(tmp_path / "nothing")]) == 0
    out = capsys.readouterr().out
    assert "112" in out
    assert "988" in out
    assert " ".join(out.split()).endswith(NOTE)


def test_the_loop_answers_until_its_input_ends_and_survives_mistakes(
    logs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lines = [
        QUESTION,
        f"/context {CONTEXT}",
        QUESTION,
        f"/context {tmp_path}/no.txt",
        "/history",
        "",
        "/what",
    ]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join([*lines, "I want to kill myself"])))
    assert main(["ask", "--logs", str(logs), "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert out.count(NOTE.split(";")[0]) == 3
    assert "Context of 8 words." in out
    assert "there is no such file" in out
    history = [line for line in out.splitlines() if line.endswith(QUESTION)]
    assert len(history) == 2
    assert "Type /context FILE|TEXT first." in out
    assert "--context" not in out.replace("--context ", "")  # the error for /context names no option
    assert "/quit" in out  # the help, after a command that isn't one


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--adapter", "/nowhere"], "--adapter: there is no folder /nowhere"),
        (["--contxt", "x"], "did you mean '--context'?"),
        (["--note", "no"], "--note"),
        (["--option", "A"], "one alone is no choice"),
        (["--max_new_tokens", "0"], "--max_new_tokens is 0"),
        (["--max_new_tokens", "many"], "--max_new_tokens"),
        (["--context", "missing.txt"], "--context 'missing.txt': there is no such file"),
    ],
)
def test_wrong_input_gets_one_line_and_exit_code_2(
    logs: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(capsys, "ask", QUESTION, "--logs", str(logs), "--device", "cpu", *words)
    assert message in said


def test_no_finished_run_is_said_with_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "ask", QUESTION, "--logs", str(tmp_path))
    assert "holds no finished run: train one with `medqlora fit`" in said


def test_an_adapter_without_our_record_is_asked_on_the_base_that_it_names(
    logs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in (logs / "version_0" / "adapter").iterdir():
        if file.name not in ("medqlora.json", "manifest.json"):
            (tmp_path / file.name).write_bytes(file.read_bytes())
    words = (QUESTION, "--context", CONTEXT)
    found = ask(capsys, logs, *words, "--adapter", str(tmp_path))
    assert found["calibrated"] is False
    assert found["caution"] == "no calibration was saved with the adapter"
    assert set(found["probabilities"]) == {"yes", "no", "maybe"}


def test_the_example_of_the_documentation_answers_as_the_command_does(
    logs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = ask(capsys, logs, QUESTION, "--context", CONTEXT)
    monkeypatch.chdir(logs.parent)
    names = runpy.run_path(str(Path(__file__).parents[3] / "examples" / "predict.py"))
    assert names["answer"].to_json() == expected
    assert capsys.readouterr().out == f"{expected['text']}\n"


def test_a_predictor_predicts_records_in_their_order(logs: Path) -> None:
    predictor = Predictor.load(logs / "version_0" / "adapter", device="cpu", generate=False)
    assert predictor.remarks == ()
    records = [Record(f"q{number}", f"Does drug {number} help?", (CONTEXT,) * number) for number in (3, 1, 2)]
    predictions = predictor.predict(records)
    assert [prediction.id for prediction in predictions] == ["q3", "q1", "q2"]
    for record, prediction in zip(records, predictions, strict=True):
        assert prediction.logprobs == pytest.approx(predictor.predict([record])[0].logprobs, abs=1e-4)
        assert prediction.text is None
    assert predictor.predict([]) == []
    with pytest.raises(ValueError, match="two records have the same id"):
        predictor.predict([records[0], records[0]])


def test_of_many_questions_one_with_a_fixed_reply_does_not_reach_the_model(logs: Path) -> None:
    predictor = Predictor.load(logs / "version_0", device="cpu", max_new_tokens=4)
    records = [Record("a", QUESTION, (CONTEXT,)), Record("b", "I want to kill myself"), Record("c", QUESTION)]
    answers = predictor.answers(records)
    assert [answer.id for answer in answers] == ["a", "b", "c"]
    assert [answer.reply is None for answer in answers] == [True, False, True]
    encoded = {
        example.id: example
        for example in encode_all(
            [records[0], records[2]], predictor.prompt, predictor.tokenizer, 256, progress=False
        )
    }
    assert predictor.answers(records, examples=encoded) == answers


def test_a_base_model_without_an_adapter_answers_uncalibrated(tiny_bases: dict[str, Path]) -> None:
    predictor = Predictor.load(tiny_bases["llama"], device="cpu", max_new_tokens=4)
    assert not predictor.wants_context
    answer = predictor.answer("Which helps?", [CONTEXT, CONTEXT], {"x": "Aspirin", "y": "Atenolol"})
    assert set(answer.probabilities) == {"x", "y"}
    assert not answer.calibrated
    assert answer.text.endswith(NOTE)


def test_loading_a_predictor_names_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(InputError, match=r"adapter_or_base: '.*' holds no adapter_config\.json"):
        Predictor.load(tmp_path / "nowhere")
    with pytest.raises(InputError, match="--device cuda: torch finds no CUDA GPU here: use cpu"):
        Predictor.load(tmp_path, device="cuda")
    with pytest.raises(InputError, match="--device gpu0: torch has no such device"):
        Predictor.load(tmp_path, device="gpu0")
    with pytest.raises(InputError, match="precision is 'fp8': choose one of 16-mixed, bf16-mixed"):
        Predictor.load(tmp_path, precision="fp8")


def test_a_text_that_is_no_unicode_is_refused(tiny_bases: dict[str, Path]) -> None:
    predictor = Predictor.load(tiny_bases["llama"], device="cpu")
    with pytest.raises(InputError, match="not a text in UTF-8"):
        predictor.answer("Does it help?", context="\udcff")
    # a fixed reply comes first
    assert predictor.answer("I want to kill myself \udcff").reply is not None


def test_a_name_on_the_hub_is_an_adapter_or_a_base_model(
    logs: Path, tiny_bases: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    snapshot = hub_cache(tmp_path, "owner/ours", logs / "version_0" / "adapter")
    hub_cache(tmp_path, "owner/base", tiny_bases["llama"])
    adapter = read_trained("owner/ours", "--adapter")
    assert (adapter.adapter, adapter.base, adapter.max_prompt_tokens) == (str(snapshot), None, 256)
    assert read_trained("owner/base", "--adapter") == Trained(base="owner/base")
    assert read_trained(str(logs / "version_0"), "--adapter").adapter == str(logs / "version_0" / "adapter")
