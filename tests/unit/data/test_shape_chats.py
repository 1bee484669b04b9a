"""Chat and instruction data: detected by columns, reported, overridden by `fields`, without leaks."""

import json
from pathlib import Path
from typing import Any

import pytest

from medqlora.data import read_questions
from medqlora.errors import InputError

TURNS = [("system", "Be brief."), ("user", "Is it safe?"), ("assistant", "It is."), ("user", "Is it of use?")]


def messages(*turns: tuple[str, str], role: str = "role", text: str = "content") -> list[dict[str, str]]:
    return [{role: who, text: said} for who, said in turns]


@pytest.mark.parametrize("written", ["list", "JSON", "Python"])
@pytest.mark.parametrize(
    ("column", "role", "text", "names"),
    [
        ("messages", "role", "content", {}),
        ("conversations", "from", "value", {"user": "human", "assistant": "gpt"}),
        ("conversation", "role", "content", {"assistant": "model"}),
        ("Messages", "role", "content", {"system": "developer"}),
    ],
)
def test_the_last_answer_is_the_target_and_the_rest_is_prompt(
    read_rows_as_train: Any, column: str, role: str, text: str, names: dict[str, str], written: str
) -> None:
    turns = [(names.get(who, who), said) for who, said in (*TURNS, ("assistant", "No. None was found."))]
    held: Any = messages(*turns, role=role, text=text)
    held = {"list": held, "JSON": json.dumps(held), "Python": str(held)}[written]
    [record], remarks = read_rows_as_train(
        [{column: held, "id": "c1"}], "t.jsonl" if written == "list" else "t.csv"
    )
    assert record.question == "Is it of use?"
    assert record.contexts == ("Be brief.", "User: Is it safe?", "Assistant: It is.")
    assert (record.answer, record.long_answer, record.id) == ("no", "None was found.", "c1")
    assert ", chat messages (last answer learned), labels no" in remarks.splitlines()[0]


def test_content_parts_and_turns_in_prompt_and_completion_are_read(read_rows_as_train: Any) -> None:
    part = [{"type": "text", "text": "Is it of use?"}]
    row = {"messages": [{"role": "user", "content": part}, {"role": "assistant", "content": "yes"}]}
    assert read_rows_as_train([row])[0][0].question == "Is it of use?"
    row = {"prompt": messages(*TURNS), "completion": messages(("assistant", "yes"))}
    [record], _ = read_rows_as_train([row])
    assert (record.question, record.answer, len(record.contexts)) == ("Is it of use?", "yes", 3)


@pytest.mark.parametrize(
    ("held", "match"),
    [
        (messages(("user", "Q?")), "answer is missing or empty: the train set needs answers"),
        (
            messages(("system", "s"), ("assistant", "yes")),
            "messages has no user's turn before its last answer",
        ),
        (
            messages(("robot", "Q?"), ("assistant", "yes")),
            "messages: role is 'robot': give system, user or assistant",
        ),
        ([{"role": "user", "content": 3}], "messages: text is 3: give a text"),
        ([{"role": "user", "content": [{"type": "image"}]}], ".*give turns of text alone"),
        ("Q?", "answer is missing or empty"),
        (None, "messages has no user's turn"),
    ],
)
def test_invalid_turns_are_an_error(read_rows_as_train: Any, held: Any, match: str) -> None:
    good = messages(("user", "P?"), ("assistant", "no"))
    with pytest.raises(InputError, match=rf"t\.jsonl:2: {match}"):
        read_rows_as_train([{"messages": good}, {"messages": held}])


def test_alpacas_input_is_the_context_or_the_question_of_a_constant_instruction(
    read_rows_as_train: Any,
) -> None:
    rows = [
        {"instruction": f"Is drug {n} of use?", "input": "", "output": "It is not known."} for n in range(3)
    ]
    rows[1]["input"] = "We tried it."
    records, remarks = read_rows_as_train(rows)
    assert [record.contexts for record in records] == [(), ("We tried it.",), ()]
    assert records[0].labels == ()
    assert ", Alpaca (instruction, input, output), free answers" in remarks
    rows = [
        {"instruction": "Answer as a doctor.", "input": f"Is drug {n} of use?", "output": "yes"}
        for n in range(3)
    ]
    records, remarks = read_rows_as_train(rows)
    assert (records[1].question, records[1].contexts) == ("Is drug 1 of use?", ("Answer as a doctor.",))
    assert "instruction is the same in every row, so input is the question" in remarks
    rows = [
        {"instruction": "Is it of use?", "input": f"We tried drug {n}.", "output": "yes"} for n in range(3)
    ]
    assert read_rows_as_train(rows)[0][1].question == "Is it of use?"


def test_system_and_history_are_contexts(read_rows_as_train: Any) -> None:
    before = {"system": "Be brief.", "history": [["Is it safe?", "It is."]]}
    contexts = ("Be brief.", "User: Is it safe?", "Assistant: It is.")
    row = {"instruction": "Is it of use?", "input": "We tried it.", "output": "yes", **before}
    [record], remarks = read_rows_as_train([row])
    assert record.contexts == (*contexts, "We tried it.")
    assert "not used" not in remarks
    row = {"conversations": messages(("user", "Is it of use?"), ("assistant", "yes")), **before}
    assert read_rows_as_train([row])[0][0].contexts == contexts
    with pytest.raises(InputError, match=r"t\.jsonl:1: history is 'x': give .* pairs"):
        read_rows_as_train([{**row, "history": "x"}])


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("prompt", "completion"), "prompt and completion"),
        (("prompt", "response"), "prompt and response"),
        (("input", "output"), "input and output"),
        (("instruction", "output"), "instructions (instruction, output)"),
        (("instruction", "response"), "instructions (instruction, response)"),
    ],
)
def test_prompt_and_completion_are_read(read_rows_as_train: Any, names: tuple[str, str], said: str) -> None:
    rows = [{names[0]: f"Is drug {n} of use?", names[1]: (" yes", " no")[n % 2]} for n in range(4)]
    records, remarks = read_rows_as_train(rows)
    assert [record.answer for record in records] == ["yes", "no", "yes", "no"]
    assert f", {said}, labels yes/no" in remarks
    # with one answer that is a label, another text is an error, not a free answer
    rows[3][names[1]] = "It is not."
    with pytest.raises(
        InputError, match=r"t\.jsonl:4: answer is 'It is not\.', which is none of yes, no, maybe"
    ):
        read_rows_as_train(rows)


@pytest.mark.parametrize(
    "answers",
    [
        {"text": ["aspirin", "the aspirin"], "answer_start": [3, 7]},
        [{"text": "aspirin", "answer_start": 3}],
        "{'text': array(['aspirin'], dtype=object), 'answer_start': array([3], dtype=int32)}",
    ],
)
def test_squads_first_answer_is_free(read_rows_as_train: Any, answers: Any) -> None:
    row = {"id": "s1", "title": "T", "context": "We gave aspirin.", "question": "What?", "answers": answers}
    [record], remarks = read_rows_as_train([row])
    assert (record.answer, record.labels, record.contexts) == ("aspirin", (), ("We gave aspirin.",))
    assert "SQuAD's form (answers with their texts), free answers" in remarks


def test_squads_articles_are_one_row_per_question(read_rows_as_train: Any) -> None:
    asked = [
        {"id": f"s{n}", "question": f"What, {n}?", "answers": [{"text": f"drug {n}", "answer_start": 0}]}
        for n in (1, 2)
    ]
    paragraph = {"context": "C.", "qas": asked}
    for row in ({"title": "T", "paragraphs": [paragraph]}, paragraph):
        other = {"context": "D.", "qas": [{"id": "s3", "question": "Why?", "answers": [{"text": "drug 3"}]}]}
        records, _ = read_rows_as_train([row, other])
        assert [(record.id, record.answer, record.contexts) for record in records[:2]] == [
            ("s1", "drug 1", ("C.",)), ("s2", "drug 2", ("C.",)),
        ]  # fmt: skip


@pytest.mark.parametrize(
    "row", [{"context": "C.", "qas": []}, {"paragraphs": [{"context": "C.", "qas": []}]}]
)
def test_squads_articles_without_questions_are_an_error(read_rows_as_train: Any, row: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="holds SQuAD articles without questions"):
        read_rows_as_train([row, row])


def test_fields_override_the_detected_format(read_rows_as_train: Any) -> None:
    row = {"instruction": "Answer.", "input": "Is it of use?", "output": "yes", "messages": messages(*TURNS)}
    fields = {"question": "input", "answer": "output", "contexts": "instruction"}
    [record], remarks = read_rows_as_train([row], fields=fields)
    assert (record.question, record.contexts) == ("Is it of use?", ("Answer.",))
    assert "chat" not in remarks


def test_labels_override_free_answers(read_rows_as_train: Any) -> None:
    rows = [{"prompt": "Q?", "completion": "It is not known."}]
    assert read_rows_as_train(rows)[0][0].labels == ()
    with pytest.raises(InputError, match="none of yes, no"):
        read_rows_as_train(rows, labels=["yes", "no"])


def test_the_formatted_example_is_no_context(read_rows_as_train: Any) -> None:
    row = {"instruction": "Q?", "output": "GIVEAWAY", "text": "### Instruction: Q? ### Response: GIVEAWAY"}
    assert read_rows_as_train([row])[0][0].contexts == ()


@pytest.mark.parametrize(
    ("row", "contexts"),
    [
        ({"messages": messages(*TURNS, ("assistant", "GIVEAWAY"))}, 3),
        ({"messages": messages(*TURNS)}, 3),
        ({"instruction": "Is it of use?", "input": "c", "output": "GIVEAWAY"}, 1),
        ({"instruction": "Is it of use?", "input": "c"}, 1),
        ({"prompt": "Is it of use?", "completion": "GIVEAWAY"}, 0),
        ({"prompt": "Is it of use?"}, 0),
        (
            {
                "context": "c",
                "question": "Is it of use?",
                "answers": {"text": ["GIVEAWAY"], "answer_start": [0]},
            },
            1,
        ),
    ],
)
def test_predict_prompts_without_the_answer(tmp_path: Path, row: dict[str, Any], contexts: int) -> None:
    (tmp_path / "ask.jsonl").write_text(json.dumps(row) + "\n")
    [record] = read_questions(str(tmp_path / "ask.jsonl"), "--data.questions", ("yes", "no"))
    assert (record.question, len(record.contexts), record.answer) == ("Is it of use?", contexts, None)
    assert record.labels == ("yes", "no")
    assert "GIVEAWAY" not in str(record)


def test_a_rejected_completion_is_an_error(read_rows_as_train: Any, tmp_path: Path) -> None:
    rows = [{"prompt": f"Is {n}?", "completion": ("yes", "no")[n], "label": n == 0} for n in range(2)]
    with pytest.raises(InputError, match=r"t\.jsonl:2: label is false beside a completion"):
        read_rows_as_train(rows)
    assert [record.answer for record in read_rows_as_train(rows[:1])[0]] == ["yes"]
    (tmp_path / "q.jsonl").write_text(json.dumps(rows[1]))
    [asked] = read_questions(str(tmp_path / "q.jsonl"), "--data.questions", ("yes", "no"))
    assert asked.question == "Is 1?"
